-- The stream of dead letters, whose name is the second argument of all scripts that touch one, and what we keep beside it:
-- which of its entries are ours (stream, record's key or '-', group), the events of those that lie there in another layout,
-- since when some of them are on their way again, and where steps of their events are recorded. Others may put entries there, and
-- may take away any.
local dead = take()
local ours, originals, replayed, lettered = p .. 'dead:ours', p .. 'dead:originals', p .. 'dead:replayed', p .. 'dead:steps'

-- Stream, record's key and group of a letter of ours; nil: it is none.
local function of_ours(letter)
  return string.match(redis.call('HGET', ours, letter) or '', '^(%S+) (%S+) (.*)$')
end

-- Whether a letter that one of our records names lies in its stream.
local function is_there(letter)
  return #redis.call('XRANGE', of_ours(letter) or dead, letter, letter) > 0
end

-- A letter is none of ours any more; answers whether it was. What is recorded of its event's steps goes with it.
local function let_go(letter)
  local steps = redis.call('HGET', lettered, letter)
  if steps then
    redis.call('DEL', steps)
    redis.call('HDEL', lettered, letter)
  end
  redis.call('HDEL', replayed, letter)
  redis.call('HDEL', originals, letter)
  return redis.call('HDEL', ours, letter) == 1
end

-- The record that names a letter goes on holding its key when the letter is gone.
local function seal(letter)
  local _, record = of_ours(letter)
  local held = record and record ~= '-' and redis.call('GET', record)
  local named, token = string.match(held or '', '^dead (%S+) (.*)$')
  if named == letter then redis.call('SET', record, 'discarded ' .. letter .. ' ' .. token, 'KEEPTTL') end
end
