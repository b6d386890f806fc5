//! Holds what was observed against what was fed: does every unit and every checkout add up?
//!
//! Pure: a plan and an observation give the rows of the report and the list of what does not hold. Asks no store.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Units;
use super::feed::{CHECKOUT_INITIATED, Case, Plan, STOCK_RECEIVED};
use super::kind::{Expected, Kind, POPULAR};

/// Handlers whose dead letter ends a checkout.
const DECIDING: [&str; 3] = ["stock_reservation", "order_creation", "stock_compensation"];

/// What the store says after everything has come to rest.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// `stock/{sku}`: units that can be sold.
    pub stock: Units,
    /// `sold/{sku}`.
    pub sold: Units,
    /// `reserved/{checkout_id}`: units set aside for a checkout that is not decided.
    pub reserved: BTreeMap<String, Units>,
    /// `CheckoutSucceeded` and `CheckoutFailed` events, by checkout.
    pub endings: HashMap<String, Vec<Ending>>,
    pub dead: Vec<Dead>,
    /// `audit/count/{type}`.
    pub audited: Units,
}

/// An event that ends a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Succeeded,
    Failed { reason: String },
}

/// What the audit needs to know of a dead letter.
#[derive(Clone, Debug)]
pub struct Dead {
    pub handler: String,
    pub event_id: String,
    pub checkout_id: Option<String>,
}

/// The audit's result.
#[derive(Debug, Default)]
pub struct Audit {
    pub products: Vec<Product>,
    pub kinds: Vec<KindRow>,
    /// What does not hold; empty if everything adds up.
    pub problems: Vec<String>,
}

/// One product's units.
#[derive(Debug, PartialEq, Eq)]
pub struct Product {
    pub sku: String,
    pub received: i64,
    pub sold: i64,
    /// In the warehouse, `held` included.
    pub left: i64,
    /// Of `left`: set aside for orders that are dead letters.
    pub held: i64,
}

/// What became of the checkouts of one kind.
#[derive(Debug, PartialEq, Eq)]
pub struct KindRow {
    pub kind: Kind,
    pub fed: usize,
    pub succeeded: usize,
    /// By reason.
    pub failed: BTreeMap<String, usize>,
    pub dead: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Succeeded,
    Failed(String),
    Dead,
}

impl Audit {
    /// Compares `observed` with `plan`.
    pub fn new(plan: &Plan, observed: &Observed) -> Self {
        let mut audit = Self { kinds: Kind::ALL.map(KindRow::empty).into(), ..Self::default() };
        let mut fates = Vec::with_capacity(plan.cases.len());
        for case in &plan.cases {
            let fate = audit.noted(fate(case, observed));
            if let Some(fate) = &fate {
                audit.noted(meets(case, fate));
            }
            audit.kinds[case.kind as usize].count(fate.as_ref());
            fates.push((case, fate));
        }
        audit.check_products(plan, observed, &fates);
        audit.check_contested(observed, &fates);
        audit.check_strangers(plan, observed);
        audit.check_audited(plan, observed);
        audit
    }

    /// Whether everything adds up.
    pub fn holds(&self) -> bool {
        self.problems.is_empty()
    }

    fn noted<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn must(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    /// Sold are the goods of the checkouts that succeeded, held those of the dead orders, and the rest is still there.
    fn check_products(&mut self, plan: &Plan, observed: &Observed, fates: &[(&Case, Option<Fate>)]) {
        let due = |wanted: &Fate, sku: &str| -> i64 {
            let cases = fates.iter().filter(|(_, fate)| fate.as_ref() == Some(wanted));
            cases.filter_map(|(case, _)| case.wanted.get(sku)).sum()
        };
        let units = |units: &Units, sku: &str| units.get(sku).copied().unwrap_or_default();
        for (sku, &received) in &plan.received {
            let held = observed.reserved.values().map(|reserved| units(reserved, sku)).sum();
            let left = units(&observed.stock, sku) + held;
            let product = Product { sku: sku.clone(), received, sold: units(&observed.sold, sku), left, held };
            self.must(product.sold + left == received, || {
                format!("{sku}: {} sold + {left} left is not {received} received", product.sold)
            });
            let (ordered, due) = (due(&Fate::Succeeded, sku), due(&Fate::Dead, sku));
            self.must(product.sold == ordered, || {
                format!("{sku}: {} sold, but {ordered} stand in orders", product.sold)
            });
            self.must(held == due, || format!("{sku}: {held} set aside, but dead orders wait for {due}"));
            self.products.push(product);
        }
    }

    /// Nobody was refused what was there: if a contested checkout failed, nothing is left.
    fn check_contested(&mut self, observed: &Observed, fates: &[(&Case, Option<Fate>)]) {
        let contested = |(case, fate): &&(&Case, Option<Fate>)| {
            case.expected == Expected::Contested && matches!(fate, Some(Fate::Failed(_)))
        };
        let refused = fates.iter().filter(contested).count();
        let left = observed.stock.get(POPULAR).copied().unwrap_or_default();
        self.must(refused == 0 || left == 0, || {
            format!("{POPULAR}: {left} left, but {refused} checkouts failed for lack of it")
        });
    }

    /// Nothing ended that was never fed.
    fn check_strangers(&mut self, plan: &Plan, observed: &Observed) {
        let known: HashSet<_> = plan.cases.iter().map(|case| &case.checkout_id).collect();
        for stranger in observed.endings.keys().filter(|id| !known.contains(id)) {
            self.problems.push(format!("{stranger} ended without being fed"));
        }
        let dead = observed.dead.iter().filter(|dead| !DECIDING.contains(&dead.handler.as_str()));
        for dead in dead {
            self.problems.push(format!("{} gave up event {}", dead.handler, dead.event_id));
        }
    }

    /// The audit handler counted every different event once.
    fn check_audited(&mut self, plan: &Plan, observed: &Observed) {
        for kind in [STOCK_RECEIVED, CHECKOUT_INITIATED] {
            let fed = plan.distinct(kind);
            let counted = observed.audited.get(kind).copied().unwrap_or_default();
            self.must(usize::try_from(counted) == Ok(fed), || {
                format!("{kind}: {fed} different events fed, but the audit handler counted {counted}")
            });
        }
    }
}

impl KindRow {
    fn empty(kind: Kind) -> Self {
        Self { kind, fed: 0, succeeded: 0, failed: BTreeMap::new(), dead: 0 }
    }

    fn count(&mut self, fate: Option<&Fate>) {
        self.fed += 1;
        match fate {
            Some(Fate::Succeeded) => self.succeeded += 1,
            Some(Fate::Failed(reason)) => *self.failed.entry(reason.clone()).or_default() += 1,
            Some(Fate::Dead) => self.dead += 1,
            None => {}
        }
    }
}

/// How a checkout ended, if it ended exactly once.
fn fate(case: &Case, observed: &Observed) -> Result<Fate, String> {
    let endings = observed.endings.get(&case.checkout_id).map_or(&[][..], Vec::as_slice);
    let dead = observed.dead.iter().filter(|dead| DECIDING.contains(&dead.handler.as_str()));
    let dead = dead.filter(|dead| match &dead.checkout_id {
        Some(id) => *id == case.checkout_id,
        None => dead.event_id == case.event_id,
    });
    match (endings, dead.count()) {
        ([Ending::Succeeded], 0) => Ok(Fate::Succeeded),
        ([Ending::Failed { reason }], 0) => Ok(Fate::Failed(reason.clone())),
        ([], 1) => Ok(Fate::Dead),
        (endings, dead) => {
            let (id, label) = (&case.checkout_id, case.kind.label());
            Err(format!("{id} ({label}) ended {} times: {endings:?}, {dead} dead letters", endings.len() + dead))
        }
    }
}

fn meets(case: &Case, fate: &Fate) -> Result<(), String> {
    let right = match (case.expected, fate) {
        (Expected::Succeeds | Expected::Contested, Fate::Succeeded) | (Expected::Dead, Fate::Dead) => true,
        (Expected::Fails(expected), Fate::Failed(reason)) => reason == expected,
        (Expected::Contested, Fate::Failed(reason)) => reason == "insufficient_stock",
        _ => false,
    };
    let problem =
        || format!("{} ({}): {:?} was due, it is {fate:?}", case.checkout_id, case.kind.label(), case.expected);
    if right { Ok(()) } else { Err(problem()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(11, 100, 1_795_000_000_000)
    }

    /// What a store looks like after the plan went as it should.
    fn ideal(plan: &Plan) -> Observed {
        let mut observed = Observed { stock: plan.received.clone(), ..Observed::default() };
        for case in &plan.cases {
            let ending = match case.expected {
                Expected::Contested if observed.stock[POPULAR] == 0 => failed("insufficient_stock"),
                Expected::Succeeds | Expected::Contested => Ending::Succeeded,
                Expected::Fails(reason) => failed(reason),
                Expected::Dead => {
                    die(&mut observed, case);
                    continue;
                }
            };
            if ending == Ending::Succeeded {
                take(&mut observed.stock, &case.wanted);
                add(&mut observed.sold, &case.wanted);
            }
            observed.endings.insert(case.checkout_id.clone(), vec![ending]);
        }
        for kind in [STOCK_RECEIVED, CHECKOUT_INITIATED] {
            observed.audited.insert(kind.into(), plan.distinct(kind).try_into().expect("a small number"));
        }
        observed
    }

    fn failed(reason: &str) -> Ending {
        Ending::Failed { reason: reason.to_owned() }
    }

    fn die(observed: &mut Observed, case: &Case) {
        let known = case.kind != Kind::Malformed;
        if known {
            take(&mut observed.stock, &case.wanted);
            observed.reserved.insert(case.checkout_id.clone(), case.wanted.clone());
        }
        observed.dead.push(Dead {
            handler: if known { "order_creation" } else { "stock_reservation" }.into(),
            event_id: case.event_id.clone(),
            checkout_id: known.then(|| case.checkout_id.clone()),
        });
    }

    fn take(units: &mut Units, wanted: &Units) {
        for (sku, quantity) in wanted {
            *units.entry(sku.clone()).or_default() -= quantity;
        }
    }

    fn add(units: &mut Units, wanted: &Units) {
        for (sku, quantity) in wanted {
            *units.entry(sku.clone()).or_default() += quantity;
        }
    }

    fn case(plan: &Plan, kind: Kind) -> &Case {
        plan.cases.iter().find(|case| case.kind == kind).expect("every kind occurs")
    }

    #[test]
    fn what_went_as_it_should_adds_up() {
        let plan = plan();
        let audit = Audit::new(&plan, &ideal(&plan));
        assert_eq!(audit.problems, Vec::<String>::new());
        assert_eq!(audit.kinds.iter().map(|row| row.fed).sum::<usize>(), 100);
        let popular = &audit.kinds[Kind::Popular as usize];
        assert_eq!(popular.succeeded as i64, plan.received[POPULAR]);
        assert!(popular.failed["insufficient_stock"] > 0);
        assert!(audit.products.iter().any(|product| product.held > 0), "a dead order holds its goods");
    }

    /// Each thing that can go wrong, and what the audit says to it.
    #[test]
    fn what_went_wrong_is_found() {
        let plan = plan();
        let (ordinary, broken) = (case(&plan, Kind::Ordinary), case(&plan, Kind::OrderBreaks));
        let sku = ordinary.wanted.keys().next().expect("a basket has a line");
        type Harm<'a> = Box<dyn Fn(&mut Observed) + 'a>;
        let harms: Vec<(&str, Harm)> = vec![
            ("is not", Box::new(|it| *it.stock.entry(sku.clone()).or_default() -= 1)),
            (
                "stand in orders",
                Box::new(|it| {
                    *it.sold.entry(sku.clone()).or_default() += 1;
                    *it.stock.entry(sku.clone()).or_default() -= 1;
                }),
            ),
            (
                "dead orders wait",
                Box::new(|it| {
                    let held = it.reserved.remove(&broken.checkout_id).expect("its goods are held");
                    add(&mut it.stock, &held);
                }),
            ),
            ("ended 0 times", Box::new(|it| drop(it.endings.remove(&ordinary.checkout_id)))),
            (
                "ended 2 times",
                Box::new(|it| {
                    it.endings.entry(ordinary.checkout_id.clone()).or_default().push(Ending::Succeeded);
                }),
            ),
            (
                "ended 2 times",
                Box::new(|it| {
                    it.endings.insert(broken.checkout_id.clone(), vec![failed("order_refused")]);
                }),
            ),
            (
                "was due",
                Box::new(|it| {
                    it.endings.insert(ordinary.checkout_id.clone(), vec![failed("order_refused")]);
                }),
            ),
            ("for lack of it", Box::new(|it| *it.stock.entry(POPULAR.into()).or_default() += 1)),
            ("without being fed", Box::new(|it| drop(it.endings.insert("nobody".into(), vec![Ending::Succeeded])))),
            (
                "notification gave up",
                Box::new(|it| {
                    it.dead.push(Dead { handler: "notification".into(), event_id: "1".into(), checkout_id: None });
                }),
            ),
            ("audit handler counted", Box::new(|it| *it.audited.entry(STOCK_RECEIVED.into()).or_default() += 1)),
        ];
        for (expected, harm) in harms {
            let mut observed = ideal(&plan);
            harm(&mut observed);
            let problems = Audit::new(&plan, &observed).problems;
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
        }
    }
}
