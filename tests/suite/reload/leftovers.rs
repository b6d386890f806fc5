//! What is left in memory of names that were in the folder once: what they counted, of so many.

use super::saved;
use crate::support::Desk;

/// As `src/host/gone.rs` has it.
const SHOWN_MAX: usize = 100;

/// Names of handlers that the metrics tell of, but for the one that stays.
fn told(desk: &Desk) -> usize {
    let text = desk.host().metrics().text().expect("metrics are text");
    let names = text.lines().filter_map(|line| line.split_once("handler=\"passing")?.1.split_once('"'));
    saved(names.map(|(name, _)| name)).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_come_and_go_without_end_do_not_stay_in_the_metrics() {
    let handler = "return { on = 'tick', handle = function() end }";
    let desk = Desk::new(&[("stays", handler)]).await;
    for round in 0..3 {
        let names: Vec<String> = (0..60).map(|n| format!("passing{round}-{n}")).collect();
        // Some of them never load.
        names.iter().enumerate().for_each(|(n, name)| desk.write(name, if n % 4 == 0 { "return" } else { handler }));
        desk.until("all are seen", |desk| desk.host().snapshot().len() == 61).await;
        names.iter().for_each(|name| desk.remove(name));
        desk.until("all are gone", |desk| desk.host().snapshot().len() == 1).await;
    }
    assert_eq!(told(&desk), SHOWN_MAX, "those that left last are told of");
    let text = desk.host().metrics().text().expect("metrics are text");
    assert!(text.contains("moontide_reloads_total{handler=\"stays\",result=\"loaded\"} 1"), "{text}");
    assert!(text.contains("moontide_reloads_total{handler=\"passing2-59\",result=\"removed\"} 1"), "{text}");
}
