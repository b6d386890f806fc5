//! What the demo prints at its end: what became of each kind of checkout, and whether the sums hold.
//!
//! Owns the words. Finds nothing out: the audit did.

use std::path::Path;

use super::audit::{Audit, KindRow, Product};
use super::feed::Plan;
use super::table::{grouped, plain};

/// Problems printed before the rest is only counted.
const PROBLEMS_SHOWN: usize = 10;

/// The report of `audit` over `plan`.
pub fn render(plan: &Plan, audit: &Audit) -> String {
    let kinds =
        plain(&["what became of", "fed", "succeeded", "failed", "dead", "because"], 5, audit.kinds.iter().map(kind));
    let header = ["stock", "received", "=", "sold", "+", "left", "of it held for dead orders"];
    let products = plain(&header, 7, audit.products.iter().map(product));
    format!("{kinds}\n\n{products}\n\n{}", conclusion(plan, audit))
}

/// What can be done now that the demo goes on serving; `moontide` is how this program was called, `store` the flag that
/// leads to the demo's store.
pub fn invitation(moontide: &str, store: &str, handlers: &Path) -> String {
    let handlers = handlers.display();
    format!(
        r#"It goes on serving. In another terminal:

  # one more checkout, and what other services see of it
  {moontide} emit {store} CheckoutInitiated \
    '{{"checkout_id": "mine-1", "client_id": "me", "lines": [{{"sku": "tea-kettle", "quantity": 1, "unit_price": 24.5}}]}}'
  {moontide} state get {store} cqrs:orders_by_client:me

  # what was given up, and why
  {moontide} dead list {store}

Edit a handler in {handlers} and save: the next event meets the new version.
Take the "order_breaks" case out of order_creation.luau, then give the dead orders another chance; their goods are still held:

  {moontide} dead replay {store} --handler order_creation --all

Ctrl-C ends it."#
    )
}

fn kind(row: &KindRow) -> Vec<String> {
    let failed: usize = row.failed.values().sum();
    let mut because: Vec<_> = row.failed.iter().map(|(reason, count)| format!("{reason} {}", number(*count))).collect();
    if row.dead > 0 {
        because.push(format!("dead letter {}", number(row.dead)));
    }
    let numbers = [row.fed, row.succeeded, failed, row.dead].map(number);
    std::iter::once(row.kind.label().to_owned()).chain(numbers).chain([because.join(", ")]).collect()
}

fn product(product: &Product) -> Vec<String> {
    let sign = if product.sold + product.left == product.received { "=" } else { "≠" };
    let held = if product.held == 0 { String::new() } else { grouped(product.held) };
    let [received, sold, left] = [product.received, product.sold, product.left].map(grouped);
    vec![product.sku.clone(), received, sign.to_owned(), sold, "+".to_owned(), left, held]
}

fn conclusion(plan: &Plan, audit: &Audit) -> String {
    if audit.holds() {
        let (checkouts, repeats) = (number(plan.cases.len()), number(plan.repeats));
        return format!(
            "It adds up: each of {checkouts} checkouts ended exactly once ({repeats} were sent twice), and no unit is lost or sold twice."
        );
    }
    let shown =
        audit.problems.iter().take(PROBLEMS_SHOWN).map(|problem| format!("  - {problem}\n")).collect::<String>();
    let more = audit.problems.len().saturating_sub(PROBLEMS_SHOWN);
    let rest = if more == 0 { String::new() } else { format!("  - and {more} more\n") };
    format!("It does NOT add up:\n{shown}{rest}")
}

fn number(count: usize) -> String {
    grouped(count as i128)
}

#[cfg(test)]
mod tests {
    use super::super::audit::Observed;
    use super::*;

    #[test]
    fn a_report_says_what_does_not_hold() {
        let plan = Plan::new(2, 40, 0);
        let report = render(&plan, &Audit::new(&plan, &Observed::default()));
        assert!(report.contains("It does NOT add up:"), "{report}");
        assert!(report.contains("≠"), "{report}");
        assert!(report.contains("more\n"), "long lists are cut: {report}");
    }

    #[test]
    fn a_kind_says_why_its_checkouts_failed() {
        let failed = [("empty_basket".to_owned(), 1), ("unknown_sku".to_owned(), 2)].into();
        let row = KindRow { kind: super::super::kind::Kind::BadBasket, fed: 4, succeeded: 0, failed, dead: 1 };
        let cells = ["unreadable basket", "4", "0", "3", "1", "empty_basket 1, unknown_sku 2, dead letter 1"];
        assert_eq!(kind(&row), cells);
    }
}
