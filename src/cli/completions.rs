//! `moontide completions`: what a shell needs to complete commands and flags.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};

use super::Cli;

const AFTER_HELP: &str = "\
Examples:
  moontide completions bash > /etc/bash_completion.d/moontide
  moontide completions zsh > ~/.zfunc/_moontide
  moontide completions fish > ~/.config/fish/completions/moontide.fish";

/// Flags of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct CompletionsArgs {
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    use clap_complete::{generate, shells};
    let (mut command, mut script) = (Cli::command(), Vec::new());
    match args.shell {
        Shell::Bash => generate(shells::Bash, &mut command, "moontide", &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, "moontide", &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, "moontide", &mut script),
    }
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(ExitCode::SUCCESS)
}
