//! Looks at a server.

use moontide_stage::server::Server;
use redis::RedisResult;

use super::{Copy, Seen, Standing, Unit};

/// Answers rows; also for those that do something in the same moment.
pub const LOOK: &str = include_str!("look.lua");
/// In front of the names of retries' streams.
const RETRY: &str = "moontide:retry:";

/// What `server` holds.
pub fn look(server: &Server) -> Seen {
    read(server.get(&["EVAL", LOOK, "0", "moontide:", "state:"]))
}

/// What `server` holds, and what came of `command`, in one step.
pub fn look_and(server: &Server, command: &[&str]) -> RedisResult<Seen> {
    let mut step = redis::pipe();
    step.atomic();
    step.cmd("EVAL").arg(LOOK).arg(0).arg("moontide:").arg("state:");
    step.cmd(command[0]).arg(&command[1..]).ignore();
    let (rows,): (Vec<Vec<String>>,) = step.query(&mut server.connect())?;
    Ok(read(rows))
}

fn read(rows: Vec<Vec<String>>) -> Seen {
    let mut seen = Seen::default();
    for row in rows {
        let row: Vec<&str> = row.iter().map(String::as_str).collect();
        match row[..] {
            ["state", key, value] => {
                seen.state.insert(key.to_owned(), serde_json::from_str(value).unwrap_or_default());
            }
            ["records", count] => seen.records = count.parse().expect("a number"),
            ["lost", group, count] => {
                seen.lost.insert(group.to_owned(), count.parse().expect("a number"));
            }
            ["ghost", _] => seen.ghosts += 1,
            ["entry", stream, _, data, standing] => seen.copies.push(copy(stream, data, standing)),
            ["later", stream, data] => seen.copies.push(copy(stream, data, "later")),
            ["dead", group, data] => seen.dead.push(Unit::of(group, data)),
            _ => panic!("the script answers {row:?}"),
        }
    }
    seen
}

fn copy(stream: &str, data: &str, standing: &str) -> Copy {
    let retry = stream.strip_prefix(RETRY);
    let standing = match standing {
        "unread" => Standing::Unread,
        "pending" => Standing::Pending,
        "settled" => Standing::Settled,
        _ => Standing::Later,
    };
    let kind = retry.unwrap_or_else(|| stream.trim_start_matches("events:"));
    Copy { unit: Unit::of(kind, data), retry: retry.is_some(), standing }
}
