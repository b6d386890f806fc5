//! A redis-server of the benchmark's own, and the bare loop on it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, Pipeline, Value};

use super::{BATCH, event};

/// Batches under way at a time.
const IN_FLIGHT: usize = 3;

/// Per event one record and one emitted event, then one acknowledgement for all: what cannot be left out.
const SCRIPT: &str = "#!lua
local out = {}
for i = 1, #ARGV, 4 do
  if redis.call('SET', ARGV[i + 1], ARGV[i], 'NX', 'PX', 3600000) then
    redis.call('XADD', 'out', '*', 'id', ARGV[i + 2], 'data', ARGV[i + 3])
  end
  out[#out + 1] = ARGV[i]
end
return redis.call('XACK', 'orders', 'bare', unpack(out))";

/// A server without persistence; ended when it is dropped.
pub struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let server = Self { child, port, _folder: folder };
        let client = Client::open(server.url()).expect("the address is right");
        let began = Instant::now();
        while client.get_connection().is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "the server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Events per second of the bare loop.
pub fn bare(events: usize) -> f64 {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    runtime.block_on(async {
        let client = Client::open(server.url()).expect("the address is right");
        let mut connection = client.get_multiplexed_async_connection().await.expect("it connects");
        fill(&mut connection, events).await;
        let sha: String =
            redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await.expect("it loads");
        let began = Instant::now();
        let loops = (0..IN_FLIGHT).map(|_| tokio::spawn(work(connection.clone(), sha.clone())));
        let mut done = 0;
        for each in loops.collect::<Vec<_>>() {
            done += each.await.expect("it ends");
        }
        assert_eq!(done, events);
        events as f64 / began.elapsed().as_secs_f64()
    })
}

async fn fill(connection: &mut MultiplexedConnection, events: usize) {
    for from in (0..events).step_by(1000) {
        let mut pipe = Pipeline::new();
        for n in from..(from + 1000).min(events) {
            let event = event(n);
            let data = event.data.as_ref().map(|data| data.text().into_owned()).unwrap_or_default();
            let time = event.time.unwrap_or_default();
            pipe.cmd("XADD").arg("orders").arg("*").arg("id").arg(event.id).arg("source").arg(event.source);
            pipe.arg("type").arg(event.kind).arg("time").arg(time).arg("data").arg(data).ignore();
        }
        pipe.exec_async(connection).await.expect("the events are stored");
    }
    let group = redis::cmd("XGROUP").arg("CREATE").arg("orders").arg("bare").arg("0").clone();
    group.exec_async(connection).await.expect("the group is made");
}

/// Reads, and settles together with the next read, until there is nothing more.
async fn work(mut connection: MultiplexedConnection, sha: String) -> usize {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("bare").arg("one").arg("COUNT").arg(BATCH).arg("STREAMS").arg("orders").arg(">");
    let mut batch = connection.send_packed_command(&read).await.expect("it reads");
    let mut done = 0;
    while let Some(settle) = settle(&sha, batch) {
        done += settle.1;
        let mut both = Pipeline::new();
        both.add_command(settle.0).add_command(read.clone());
        let mut answers = connection.send_packed_commands(&both, 0, 2).await.expect("it settles");
        batch = answers.pop().unwrap_or(Value::Nil);
    }
    done
}

/// The call that settles a batch, and how many events it has; `None`: it has none.
fn settle(sha: &str, batch: Value) -> Option<(redis::Cmd, usize)> {
    type Entry = (String, Vec<(String, String)>);
    let streams: Option<Vec<(String, Vec<Entry>)>> = redis::from_redis_value(batch).expect("it is a read");
    let entries = streams?.pop()?.1;
    let mut call = redis::cmd("EVALSHA");
    call.arg(sha).arg(0);
    for (entry, fields) in &entries {
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str());
        let order: serde_json::Value = serde_json::from_str(field("data")).expect("it is JSON");
        let out = serde_json::json!({
            "order_id": order["order_id"], "client": order["client"]["id"], "total": order["total"],
        });
        let key = xxhash_rust::xxh3::xxh3_128(field("id").as_bytes()).to_le_bytes();
        call.arg(entry).arg(&key[..]).arg(uuid::Uuid::now_v7().to_string()).arg(out.to_string());
    }
    Some((call, entries.len()))
}
