//! What is kept, and some thousand changes of it, on any compiler.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use moontide_fuzz::{ALL, Target, mutate, named};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// Sets where changes begin; a failing run prints its own.
const SEED: &str = "MOONTIDE_FUZZ_SEED";

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("the folder can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("the file can be read")).collect()
}

fn try_out(target: &Target, input: &[u8], from: &str) {
    let tried = catch_unwind(|| (target.run)(input));
    assert!(tried.is_ok(), "{}, {from}: {}", target.name, input.escape_ascii());
}

fn short(name: &str) {
    let target = named(name).expect("it is a target");
    let inputs = kept(target);
    inputs.iter().for_each(|input| try_out(target, input, "kept"));
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..target.runs {
        let input = mutate::change(&mut rng, &inputs);
        try_out(target, &input, &format!("{SEED}={seed}"));
    }
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                short(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tried() {
            assert_eq!(ALL.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

targets!(envelope, json, config, manifest, require, settle, http, lines);
