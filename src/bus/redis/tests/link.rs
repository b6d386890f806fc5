//! That an answer belongs to its question.

use redis::{Pipeline, Value};

use super::*;
use crate::bus::redis::fault::Fault;

#[tokio::test]
async fn each_command_has_its_own_answer_in_a_transaction_too() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        let mut write = Pipeline::new();
        write.cmd("INCR").arg("n").cmd("LPUSH").arg("n").arg("x").cmd("INCR").arg("n");
        for first in [1, 3] {
            let answers = store.link.send(&write).await.expect("the server answers");
            assert_eq!(answers.len(), 3);
            assert!(matches!(answers[0], Ok(Value::Int(n)) if n == first), "{answers:?}");
            assert!(matches!(answers[1], Err(Fault::Refused(_) | Fault::Away(_))), "{answers:?}");
            assert!(matches!(answers[2], Ok(Value::Int(n)) if n == first + 1), "{answers:?}");
            write.atomic();
        }
        let next = store.link.call(redis::cmd("GET").arg("n")).await;
        assert!(matches!(next, Ok(Value::BulkString(four)) if four == b"4"), "nobody gets somebody else's answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_the_connection_broken_may_be_on_a_thread_without_io() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        let get = || {
            let store = store.clone();
            // As a script's thread.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let answer = async { store.link.call(redis::cmd("GET").arg("n")).await.is_ok() };
                runtime.expect("a runtime").block_on(answer)
            })
        };
        server.call(&["SET", "n", "1"]);
        assert!(get().join().expect("it does not panic"));
        server.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        until("there is a connection again", || get().join().expect("it does not panic")).await;
    }
}
