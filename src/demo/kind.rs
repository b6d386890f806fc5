//! The kinds of checkout that the demo feeds: what their baskets look like, and what must become of them.
//!
//! Owns the catalogue and the truth that the audit holds the store against. Knows nothing of events and stores.

use rand::Rng;
use serde_json::{Value, json};

use super::Units;

/// The product most clients want; there is less of it than they want together.
pub const POPULAR: &str = "moon-lamp";
/// A product of which there are [`SCARCE_RECEIVED`] units, fewer than any basket asks for: nobody gets one.
pub const SCARCE: &str = "zinc-globe";
/// Units of [`SCARCE`] that arrive.
pub const SCARCE_RECEIVED: i64 = 5;
/// Products that arrive in plenty.
pub const PLENTIFUL: [&str; 5] = ["linen-apron", "oak-stool", "tea-kettle", "wall-map", "wool-blanket"];

const INSUFFICIENT: &str = "insufficient_stock";

/// What a checkout is there to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Ordinary,
    Popular,
    TooMuch,
    SecondLine,
    BadBasket,
    OrderFails,
    OrderFlaky,
    OrderBreaks,
    Malformed,
}

/// Each kind's share of all checkouts in percent; [`Kind::Popular`] gets the rest.
const SHARES: [(Kind, usize); 8] = [
    (Kind::Ordinary, 15),
    (Kind::TooMuch, 6),
    (Kind::SecondLine, 5),
    (Kind::BadBasket, 4),
    (Kind::OrderFails, 6),
    (Kind::OrderFlaky, 4),
    (Kind::OrderBreaks, 2),
    (Kind::Malformed, 1),
];

/// What must become of a checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Succeeds,
    /// With this reason.
    Fails(&'static str),
    /// Succeeds while there is stock, fails for lack of it afterwards.
    Contested,
    Dead,
}

/// A basket and what must become of it.
pub struct Basket {
    /// As the event carries them.
    pub lines: Value,
    /// What a reservation sets aside for them; empty where it cannot get so far.
    pub wanted: Units,
    pub expected: Expected,
}

impl Kind {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 9] = [
        Self::Ordinary,
        Self::Popular,
        Self::TooMuch,
        Self::SecondLine,
        Self::BadBasket,
        Self::OrderFails,
        Self::OrderFlaky,
        Self::OrderBreaks,
        Self::Malformed,
    ];

    /// The kinds of `checkouts` checkouts, each at least once if there are 20 or more.
    pub fn shared_out(checkouts: usize) -> Vec<Self> {
        let mut kinds = Vec::with_capacity(checkouts);
        for (kind, percent) in SHARES {
            kinds.extend(std::iter::repeat_n(kind, (checkouts * percent / 100).max(1)));
        }
        kinds.resize(checkouts, Self::Popular);
        kinds
    }

    /// The row of the report.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Popular => "the product most want",
            Self::TooMuch => "more than there is",
            Self::SecondLine => "second line lacks stock",
            Self::BadBasket => "unreadable basket",
            Self::OrderFails => "order refused",
            Self::OrderFlaky => "order service flaky",
            Self::OrderBreaks => "order service broken",
            Self::Malformed => "without checkout_id",
        }
    }

    /// The mark in the event that tells `order_creation.luau` how its order goes.
    pub fn simulate(self) -> Option<&'static str> {
        match self {
            Self::OrderFails => Some("order_fails"),
            Self::OrderFlaky => Some("order_flaky"),
            Self::OrderBreaks => Some("order_breaks"),
            _ => None,
        }
    }

    /// A basket of this kind; `nth` of its kind picks among variants, so that each of them occurs.
    pub fn basket(self, nth: usize, rng: &mut impl Rng) -> Basket {
        match self {
            Self::Popular => popular(nth, rng),
            Self::TooMuch => readable(&[(SCARCE, rng.random_range(6..20))], Expected::Fails(INSUFFICIENT)),
            Self::SecondLine => second_line(nth, rng),
            Self::BadBasket => unreadable(nth),
            Self::Ordinary | Self::OrderFlaky => readable(&plentiful(rng), Expected::Succeeds),
            Self::OrderFails => readable(&plentiful(rng), Expected::Fails("order_refused")),
            Self::OrderBreaks => readable(&plentiful(rng), Expected::Dead),
            Self::Malformed => Basket { wanted: Units::new(), ..readable(&plentiful(rng), Expected::Dead) },
        }
    }
}

fn readable(lines: &[(&str, i64)], expected: Expected) -> Basket {
    let mut wanted = Units::new();
    for (sku, quantity) in lines {
        *wanted.entry((*sku).to_owned()).or_default() += quantity;
    }
    let lines = lines.iter().map(|(sku, quantity)| line(sku, json!(quantity))).collect();
    Basket { lines: Value::Array(lines), wanted, expected }
}

fn line(sku: &str, quantity: Value) -> Value {
    json!({ "sku": sku, "quantity": quantity, "unit_price": price(sku) })
}

fn price(sku: &str) -> f64 {
    match sku {
        POPULAR => 39.9,
        SCARCE => 120.0,
        _ => 24.5,
    }
}

fn any_plentiful(rng: &mut impl Rng) -> (&'static str, i64) {
    (PLENTIFUL[rng.random_range(0..PLENTIFUL.len())], rng.random_range(1..=3))
}

fn plentiful(rng: &mut impl Rng) -> Vec<(&'static str, i64)> {
    (0..rng.random_range(1..=3)).map(|_| any_plentiful(rng)).collect()
}

fn popular(nth: usize, rng: &mut impl Rng) -> Basket {
    let mut lines = vec![(POPULAR, 1)];
    if nth.is_multiple_of(3) {
        lines.push(any_plentiful(rng));
    }
    readable(&lines, Expected::Contested)
}

/// Something else lacks stock: the second line, or two lines of one product that only together want too much.
fn second_line(nth: usize, rng: &mut impl Rng) -> Basket {
    let scarce =
        if nth.is_multiple_of(2) { vec![(SCARCE, rng.random_range(6..20))] } else { vec![(SCARCE, 3), (SCARCE, 3)] };
    let lines: Vec<_> = std::iter::once(any_plentiful(rng)).chain(scarce).collect();
    readable(&lines, Expected::Fails(INSUFFICIENT))
}

fn unreadable(nth: usize) -> Basket {
    let (lines, reason) = match nth % 4 {
        0 => (json!([]), "empty_basket"),
        1 => (json!([line(POPULAR, json!(0))]), "invalid_quantity"),
        2 => (json!([line(POPULAR, json!(1.5))]), "invalid_quantity"),
        _ => (json!([line("unicorn", json!(1))]), "unknown_sku"),
    };
    Basket { lines, wanted: Units::new(), expected: Expected::Fails(reason) }
}
