//! Health: red when the store is away or a reader is gone, green by itself.

use std::time::{Duration, Instant};

use super::client::{get, post};
use super::{COUNT, ON, desk};
use crate::support::{Desk, PATIENCE, event};

#[tokio::test(flavor = "multi_thread")]
async fn ready_says_what_the_services_before_it_said() {
    let (desk, address) = desk().await;
    assert_eq!(get(address, "/healthz").await.json(), serde_json::json!({"status": "healthy", "problems": []}));
    let ready = get(address, "/readyz").await;
    assert!(ready.has("cache-control: no-store"), "{ready:?}");
    assert_eq!(
        ready.json(),
        serde_json::json!({"status": "healthy", "problems": [], "connected": true,
            "subscribed_events": ["order.**"], "pending_messages": {"count": 0}})
    );
    desk.write("broken", "return {");
    desk.until("the problem is seen", |desk| desk.host().snapshot().len() == 2).await;
    assert_eq!(get(address, "/readyz").await.status, 200, "a broken file stops nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_while_the_store_is_away_and_alive_all_the_time() {
    let (desk, address) = desk().await;
    let (file, away) = (desk.dir.path().join("moontide.db"), desk.dir.path().join("away.db"));
    std::fs::rename(&file, &away).expect("it is there");
    let red = get(address, "/readyz").await;
    assert_eq!((red.status, red.json()["connected"].as_bool()), (503, Some(false)), "{red:?}");
    assert!(red.json()["problems"].to_string().contains("deleted or replaced"), "it says why: {red:?}");
    let refused = post(address, "/events/order.a", &[], "{}").await;
    assert_eq!(refused.problem().0, 503);
    assert!(refused.has("retry-after: 30"), "{refused:?}");
    assert_eq!(get(address, "/healthz").await.status, 200);
    std::fs::rename(&away, &file).expect("it is there");
    // Green by itself; a write that failed while the file was away may have been answered only now.
    let began = Instant::now();
    while get(address, "/readyz").await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "it does not come back");
    }
    assert_eq!(post(address, "/events/order.a", &[], "{}").await.status, 202);
    desk.until_state("n", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_writer_is_gone_is_not_alive() {
    let (desk, address) = desk().await;
    assert_eq!(get(address, "/healthz").await.status, 200);
    desk.host().backend().close().await;
    let red = get(address, "/healthz").await;
    assert_eq!(red.status, 503, "{red:?}");
    assert!(red.body.contains("nobody writes to the store any more"), "{red:?}");
    assert_eq!(get(address, "/readyz").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_works_long_is_ready() {
    let slow = "return { on = 'order.*', concurrency = 1, handle = function(event, ctx) ctx:sleep('30s') end }";
    let desk = Desk::with(ON, &[("slow", slow)]).await;
    let address = desk.host().http_address().expect("HTTP is on");
    desk.emit((0..4).map(|n| event("order.a", n, "{}")).collect()).await;
    desk.until("it is at work", |desk| desk.counts("slow").running == 1).await;
    let began = Instant::now();
    loop {
        let ready = get(address, "/readyz").await;
        assert_eq!(ready.status, 200, "{ready:?}");
        if ready.json()["pending_messages"]["slow"] == 4 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{ready:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_are_listed_as_the_command_lists_them() {
    let (desk, address) = desk().await;
    // The host tells the store of its handlers now and then.
    let began = Instant::now();
    let mut listed = get(address, "/handlers").await.json();
    while listed[0]["state"] == "not running" {
        assert!(began.elapsed() < PATIENCE, "{listed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        listed = get(address, "/handlers").await.json();
    }
    assert_eq!((&listed[0]["name"], &listed[0]["state"]), (&"count".into(), &"live".into()), "{listed}");
    assert_eq!((&listed[0]["types"][0], &listed[0]["group"]), (&"order.**".into(), &"count".into()), "{listed}");
    assert_eq!(listed[0]["version"], desk.version("count").as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_a_listener_of_their_own_where_one_is_set() {
    let settings = "[http]\nlisten = \"\"\n[metrics]\nlisten = \"127.0.0.1:0\"";
    let desk = Desk::with(settings, &[("count", COUNT)]).await;
    assert_eq!(desk.host().http_address(), None);
    let address = desk.host().metrics_address().expect("metrics are on");
    assert_eq!(get(address, "/metrics").await.status, 200);
    for path in ["/handlers", "/readyz", "/"] {
        assert_eq!(get(address, path).await.problem().0, 404, "{path}");
    }
    assert_eq!(post(address, "/events/order.a", &[], "{}").await.problem().0, 404);
}
