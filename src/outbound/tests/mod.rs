//! The rule against server-side request forgery, as tables: addresses, spellings, grants, redirects.

mod addresses;
mod client;
mod grants;
mod redirects;
mod spellings;

use super::target::Target;

fn target(url: &str) -> Target {
    Target::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"))
}
