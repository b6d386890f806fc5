//! A checkout choreography as its shop, its event store and its dashboards know it, worked off by three processes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::compose::{self, Instance};
use super::{ask, metric, place};
use crate::support::PATIENCE;
use moontide_stage::rest;
use moontide_stage::server::Server;

const STREAM: &str = "ecommerce.checkout.events";
const DEAD: &str = "event_dlq";
const GROUPS: [&str; 6] = [
    "checkout-audit",
    "checkout-cqrs",
    "checkout-notification",
    "choreo-compensation",
    "choreo-order",
    "choreo-reservation",
];
const CHECKOUTS: usize = 240;
const CLIENTS: usize = 17;

/// Units at the beginning. There are not enough lamps for all who want one.
fn stock() -> Value {
    json!({ "lampe": 60, "table": 10_000, "chaise": 10_000, "rare": 5 })
}

fn is_without_id(n: usize) -> bool {
    n % 10 == 7
}

/// What client `n` wants to buy, and how that may end; `null`: as a dead letter.
fn checkout(n: usize) -> Value {
    let bad = [
        (json!([["table", 0]]), "invalid_quantity"),
        (json!([["licorne", 1]]), "unknown_product"),
        (json!([]), "empty_basket"),
    ];
    let (produits, ends) = match n % 10 {
        0..3 => (json!([["lampe", 1 + n % 2]]), json!(["succeeded", "insufficient_stock"])),
        3..5 => (json!([["table", 2], ["chaise", 1], ["table", 1]]), json!(["succeeded"])),
        5 => (json!([["table", 999_999]]), json!(["insufficient_stock"])),
        6 => (json!([["chaise", 3]]), json!(["client_barred"])),
        _ if is_without_id(n) => (json!([["chaise", 1]]), Value::Null),
        8 => (bad[n / 10 % 3].0.clone(), json!([bad[n / 10 % 3].1])),
        _ => (json!([["table", 1], ["rare", 9]]), json!(["insufficient_stock"])),
    };
    let client = if n % 10 == 6 { format!("barred-{}", n % 4) } else { format!("client-{}", n % CLIENTS) };
    let id = (!is_without_id(n)).then(|| format!("checkout-{n}"));
    let times = if [1, 4, 6, 9].contains(&(n % 10)) { 2 } else { 1 };
    json!({ "checkout_id": id, "client_id": client, "produits": produits, "times": times, "ends": ends })
}

/// Asks again until it is so.
async fn until(what: &str, instances: &[Instance], mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        let logs = || instances.iter().map(Instance::log).collect::<String>();
        assert!(began.elapsed() < PATIENCE, "never: {what}\n{}", logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn groups(server: &Server) -> Vec<String> {
    let found = server.try_call(&["XINFO", "GROUPS", STREAM]);
    let found = found.and_then(|groups| Ok(redis::from_redis_value::<Vec<HashMap<String, redis::Value>>>(groups)?));
    let name = |group: HashMap<String, redis::Value>| redis::from_redis_value(group.get("name")?.clone()).ok();
    let mut names: Vec<_> = found.unwrap_or_default().into_iter().filter_map(name).collect();
    names.sort();
    names
}

/// Series, the handler whose instance counts them, and what they come to.
fn series(ended: &Value) -> Vec<(&str, String, f64)> {
    let count = |value: &Value| value.as_f64().expect("a number");
    let types = ended["types"].as_object().expect("it counts types");
    let consumed = |consumer: &str, kind: &str| {
        format!("events_consumed_total{{consumer=\"{consumer}\",topic=\"{STREAM}\",type=\"{kind}\"}}")
    };
    let published = |kind: &str| format!("events_published_total{{topic=\"{STREAM}\",type=\"{kind}\"}}");
    let checkouts = (0..CHECKOUTS).filter(|n| !is_without_id(*n)).count() as f64;
    let mut all = vec![
        ("stock_reservation", consumed("stock_reservation", "CheckoutInitiated"), checkouts),
        ("order_creation", r#"saga_choreo_success_total{source="order_creation"}"#.into(), count(&ended["succeeded"])),
        (
            "stock_compensation",
            r#"saga_choreo_failed_total{source="stock_compensation"}"#.into(),
            count(&ended["failed"]),
        ),
    ];
    for (kind, by, of) in [
        ("StockReserved", "stock_reservation", "order_creation"),
        ("StockReservationFailed", "stock_reservation", "stock_compensation"),
        ("OrderCreated", "order_creation", "cqrs_projection"),
        ("OrderCreationFailed", "order_creation", "stock_compensation"),
        ("CheckoutSucceeded", "order_creation", "notification"),
        ("CheckoutFailed", "stock_compensation", "notification"),
    ] {
        all.push((by, published(kind), count(&types[kind])));
        all.push((of, consumed(of, kind), count(&types[kind])));
    }
    all.extend(types.iter().map(|(kind, events)| ("audit", consumed("audit", kind), count(events))));
    all
}

#[test]
fn every_handler_loads_with_the_settings_beside_it() {
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_moontide"));
    check.args(["check", "--json"]).current_dir(place("examples/choreography")).env_clear();
    let checked = check.output().expect("the binary starts");
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    let checked: Value = serde_json::from_slice(&checked.stdout).expect("it prints JSON");
    let list = checked.as_array().expect("a list");
    let mut groups: Vec<_> = list.iter().map(|one| one["group"].as_str().expect("it loads")).collect();
    groups.sort_unstable();
    assert_eq!(groups, GROUPS);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_work_off_what_the_shop_publishes_and_others_find_all_where_it_was() {
    let (services, command) = compose::services();
    let (server, folder) = (compose::server(&command), tempfile::tempdir().expect("a temporary folder"));
    let url = server.url();
    let instances: Vec<_> = services.iter().map(|service| service.start(folder.path(), &server)).collect();
    until("all groups are there", &instances, async || groups(&server) == GROUPS).await;

    let stock = stock();
    for (product, units) in stock.as_object().expect("products and units") {
        server.call(&["SET", &format!("stock:{product}"), &units.to_string()]);
    }
    for n in 0..4 {
        server.call(&["SET", &format!("barred:barred-{n}"), "\"unpaid\""]);
    }
    let checkouts: Vec<_> = (0..CHECKOUTS).map(checkout).collect();
    let (python, node) = checkouts.split_at(CHECKOUTS / 2);
    std::thread::scope(|scope| {
        for (shop, part) in [("shop.py", python), ("shop.js", node)] {
            let url = &url;
            scope.spawn(move || ask(shop, &[url], &json!(part).to_string()));
        }
        scope.spawn(|| ask("binary.py", &["checkouts", &url, STREAM], ""));
    });
    until("all is done", &instances, async || rest::left(&server).is_empty()).await;

    let plan = json!({ "stock": stock, "checkouts": checkouts });
    let ended = ask("event_store.py", &[&url, DEAD], &plan.to_string());
    let ended: Value = serde_json::from_str(&ended).expect("it prints JSON");
    println!("{ended}");
    for (handler, name, expected) in series(&ended) {
        let instance = instances.iter().find(|instance| instance.handlers.contains(handler)).expect("somebody runs it");
        // What was settled is counted a moment later.
        let counted = async || metric(instance.metrics, &name).await == Some(expected);
        until(&format!("{name} {expected}"), &instances, counted).await;
    }
}
