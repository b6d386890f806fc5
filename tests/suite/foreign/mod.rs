//! Other people's services, in their own languages: what they publish is handled, and what is emitted they can read.
//!
//! Their programs are in `tests/clients`, each written as the service is that it stands for. `scripts/test` installs their
//! libraries; without those these tests fail, and say so.

mod channels;
mod choreography;
mod compose;
mod documents;
mod layouts;
mod shared;
mod state;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::http::client::get;

/// A path below the project's folder.
fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program of `tests/clients`, ready to be started.
fn client(script: &str) -> Command {
    let node = place("target/node/node_modules");
    let (program, library) = match script.ends_with(".py") {
        true => (place("target/python/bin/python"), place("target/python/installed")),
        false => ("node".into(), node.clone()),
    };
    assert!(library.exists(), "{} is missing: scripts/test makes it", library.display());
    let mut command = Command::new(program);
    command.arg(place("tests/clients").join(script)).env("NODE_PATH", node).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a program of `tests/clients` to its end, with `input` to read; answers what it printed.
fn ask(script: &str, arguments: &[&str], input: &str) -> String {
    let mut command = client(script);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the interpreter is there: scripts/test installs it");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads what it is given");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script} {arguments:?}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The value of a series, where it is served.
async fn metric(address: SocketAddr, series: &str) -> Option<f64> {
    let text = get(address, "/metrics").await.body;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Runs programs of `tests/clients` side by side.
fn at_once(programs: &[(&str, &[&str])]) {
    std::thread::scope(|scope| {
        for (script, arguments) in programs {
            scope.spawn(move || ask(script, arguments, ""));
        }
    });
}
