//! Asks a store what a process holds: how long the work of a dead one lies about is measured with it.

use std::path::Path;
use std::time::Duration;

use moontide_stage::server::Server;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::place::{FILE, Place};
use crate::stage::{PATIENCE, Stage};

/// How often is looked; times are no finer.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Pending entries of every consumer whose name has the process' name in it.
const PENDING: &str = r#"
local p, name, held = ARGV[1], ARGV[2], 0
local streams = redis.call('SMEMBERS', p .. 'streams')
for _, group in ipairs(redis.call('SMEMBERS', p .. 'groups')) do
  streams[#streams + 1] = p .. 'retry:' .. group
end
for _, stream in ipairs(streams) do
  if redis.call('EXISTS', stream) == 1 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group[2])) do
        if string.find(consumer[2], name, 1, true) then held = held + consumer[4] end
      end
    end
  end
end
return held
"#;

const SPANS: &str = "SELECT coalesce(sum(left), 0) FROM span WHERE owner IN (SELECT id FROM process WHERE name = ?1)";

/// Measures, besides whatever goes on, the time until the process `name` holds nothing any more.
pub fn until_released(stage: &Stage, name: &str) -> JoinHandle<Duration> {
    let name = name.to_owned();
    let ask: Box<dyn Fn() -> Option<u64> + Send> = match &stage.place {
        Place::Server(server) => asking_server(server, name),
        Place::File => asking_file(stage.folder.path(), name),
    };
    let began = Instant::now();
    tokio::spawn(async move {
        while began.elapsed() < PATIENCE && ask() != Some(0) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        began.elapsed()
    })
}

fn asking_server(server: &Server, name: String) -> Box<dyn Fn() -> Option<u64> + Send> {
    let url = server.url();
    let name = format!("moontide:{name}:");
    Box::new(move || {
        let mut connection = redis::Client::open(url.as_str()).ok()?.get_connection().ok()?;
        redis::cmd("EVAL").arg(PENDING).arg(0).arg("moontide:").arg(&name).query(&mut connection).ok()
    })
}

fn asking_file(folder: &Path, name: String) -> Box<dyn Fn() -> Option<u64> + Send> {
    let file = folder.join(FILE);
    Box::new(move || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let file = rusqlite::Connection::open_with_flags(&file, flags).ok()?;
        let held: i64 = file.query_row(SPANS, [&name], |row| row.get(0)).ok()?;
        u64::try_from(held).ok()
    })
}
