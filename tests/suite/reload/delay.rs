//! How long it takes from a save until the new version serves. Measured, not judged: machines differ.

use std::time::{Duration, Instant};

use super::load::script;
use super::{handlers, saves};
use crate::support::{Desk, PATIENCE};

const SAVES: usize = 100;

/// Until the version of `tick` is another one than `before`.
async fn until_other(desk: &Desk, before: &str) {
    let began = Instant::now();
    while desk.version("tick") == before {
        assert!(began.elapsed() < PATIENCE, "the save is never seen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a measurement: scripts/test save_to_live -- --ignored --nocapture"]
async fn save_to_live() {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let path = handlers(&desk).join("tick.luau");
    for (way, save) in saves::WAYS.iter().filter(|(way, _)| ["truncated", "renamed", "sedded"].contains(way)) {
        let mut took = Vec::new();
        for n in 0..SAVES {
            let before = desk.version("tick");
            save(&path, &script(&format!("{way}{n}")));
            let saved = Instant::now();
            until_other(&desk, &before).await;
            took.push(saved.elapsed());
        }
        took.sort();
        let (median, late, most) = (took[SAVES / 2], took[SAVES * 95 / 100], took[SAVES - 1]);
        println!(
            "{way:<10} {SAVES} saves: live after {median:.0?} (median), {late:.0?} (95 of 100), {most:.0?} (at most)"
        );
    }
}
