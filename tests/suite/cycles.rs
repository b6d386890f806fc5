//! Handlers that keep each other busy for ever, on SQLite and, by `redis::process`, on servers.

use crate::rig::{Place, Rig};
use crate::support::event;

const PING: &str = r#"
return {
    on = "ping",
    retry = { delay = "5ms", jitter = 0 },
    handle = function(event, ctx)
        ctx.kv:add("pings", 1)
        ctx:emit("pong", { n = 1 })
        if ctx.attempt == 1 then
            error("once more")
        end
    end,
}
"#;

/// Hands on what it got, and a little later.
const PONG: &str = r#"
return {
    on = "pong",
    handle = function(event, ctx)
        ctx.kv:add("pongs", 1)
        ctx:emit("ping", { n = 2 }, { delay = "10ms", ext = event.ext })
    end,
}
"#;

/// `layouts`: of the two streams, one after the other.
pub async fn a_cycle_ends_as_a_dead_letter_that_shows_its_chain(place: Place, layouts: [&str; 2]) {
    let [ping, pong] = layouts;
    let streams = format!(
        "[[stream]]\ntypes = ['ping']\nname = 'events:{{type}}'\nlayout = '{ping}'\n\
         [[stream]]\ntypes = ['pong']\nname = 'events:{{type}}'\nlayout = '{pong}'\n"
    );
    let settings = format!("{streams}[limits]\ndepth = 7\n[handlers.ping]\nlimits = {{ depth = 5 }}");
    let rig = Rig::configured(place, &[("ping", PING), ("pong", PONG)], &settings).await;
    let _worker = rig.start();
    rig.until("both read", async || rig.backend.overview.groups().await.is_ok_and(|groups| groups.len() == 2)).await;
    rig.publish(vec![event("ping", 1, "{\"n\":0}")]).await;
    rig.until("it is given up", async || !rig.dead().await.is_empty()).await;

    let letter = rig.dead().await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.handler.as_str(), letter.attempts), ("cycle", "ping", 1), "{letter:?}");
    let says = "6 emits led to this event, more than limits.depth = 5: ping(ping) -> pong(pong) -> ping(ping) -> pong(pong) -> \
                ping(ping) -> pong(pong); break the cycle";
    let error = letter.error().unwrap_or_default();
    assert!(error.starts_with(says), "{error}");
    let counts = |n: u64| [("pings".to_owned(), n), ("pongs".to_owned(), n)].into();
    assert_eq!(rig.state().await, counts(3), "it was not run");

    rig.backend.dead.replay(letter.id).await.expect("the store answers");
    rig.until("it is given up anew", async || rig.dead().await.iter().any(|other| other.id != letter.id)).await;
    rig.quiet().await;
    assert_eq!(rig.state().await, counts(6), "a replay begins a new chain");
    assert_eq!(rig.dead_reasons().await, ["cycle"], "the first letter is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_on_a_file() {
    a_cycle_ends_as_a_dead_letter_that_shows_its_chain(Place::File, ["cloudevents"; 2]).await;
}
