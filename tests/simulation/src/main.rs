//! Runs histories and says what they came to; exits with 1 where one broke a promise.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use moontide_simulation::{NOT_SIMULATED, Summary, happen, run};

/// Simulated histories of Moontide's worker, judge, registry and retries.
#[derive(Parser)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 100_000)]
    histories: u64,
    /// 0: one per processor
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Prints every step of every history
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let Arguments { seed, histories, threads, trace } = Arguments::parse();
    let began = Instant::now();
    let summary = match trace {
        true => traced(seed, histories),
        false => run(seed, histories, threads),
    };
    let seconds = began.elapsed().as_secs_f64();
    print!("{summary}");
    println!("{:.0} histories a second", summary.histories as f64 / seconds);
    println!("not simulated:");
    NOT_SIMULATED.iter().for_each(|what| println!("  {what}"));
    ExitCode::from(u8::from(!summary.broken.is_empty()))
}

fn traced(first: u64, histories: u64) -> Summary {
    let mut summary = Summary::default();
    for seed in first..first + histories {
        let history = happen(seed, None);
        print!("seed {seed}:\n{}", history.trace);
        summary.add(seed, history);
    }
    summary
}
