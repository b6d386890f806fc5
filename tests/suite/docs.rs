//! What the documentation shows, tried: every handler loads, every command is one, what it prints looks as it is shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use moontide::cli::Cli;
use moontide::script::{LoadOptions, Sources, load};

use crate::cli::Place;
use crate::support::{PATIENCE, free_port};

pub fn read(page: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("the page is there")
}

/// The insides of the blocks of `text` that begin with a fence and `language`.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    // Every other piece lies within fences; the language stands in front.
    let inside = text.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap_or((block, "")));
    inside.filter(|(begins, _)| fence == format!("```{begins}\n")).map(|(_, inside)| inside).collect()
}

/// The files that the ```lua blocks of `page` are, by path below the handlers folder. The first line of a block names it.
fn shown(page: &str) -> BTreeMap<String, Arc<str>> {
    let text = read(page);
    let named = blocks(&text, "lua").into_iter().map(|block| {
        let path = block.lines().next().and_then(|line| line.strip_prefix("-- handlers/"));
        (
            path.unwrap_or_else(|| panic!("{page}: a block does not begin with its path: {block}")).to_owned(),
            block.into(),
        )
    });
    named.collect()
}

#[test]
fn handlers_in_the_documentation_load() {
    for (page, handlers_min) in
        [("README.md", 1), ("docs/handlers.md", 9), ("docs/taking-over.md", 1), ("docs/outbound.md", 2)]
    {
        let files = shown(page);
        let sources = Arc::new(Sources::new(files.clone()));
        let handlers: Vec<_> = files.keys().filter(|path| !path.starts_with("lib/")).collect();
        assert!(handlers.len() >= handlers_min, "{page} shows {handlers:?}");
        for path in handlers {
            if let Err(error) = load(path, &sources, &LoadOptions::default()) {
                panic!("{page}: {path}: {error}");
            }
        }
    }
}

/// What a shell makes of a command line.
fn words(line: &str) -> Vec<String> {
    let script = format!("printf '%s\\0' {line}");
    let split = Command::new("bash").args(["-c", &script]).output().expect("bash is there");
    assert!(split.status.success(), "{line}: {}", String::from_utf8_lossy(&split.stderr));
    let words = String::from_utf8(split.stdout).expect("the documentation is UTF-8");
    words.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

/// Panics if `line` is no command line of this version; what it leaves open may be missing.
fn check_command(place: &str, line: &str) {
    if let Err(error) = Cli::try_parse_from(words(line)) {
        let open = [ErrorKind::MissingRequiredArgument, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
        assert!(open.contains(&error.kind()), "{place}: {line}\n{error}");
    }
}

#[test]
fn commands_in_the_text_are_commands() {
    let mut found = 0;
    const PAGES: [&str; 7] = [
        "README.md",
        "docs/handlers.md",
        "docs/layouts.md",
        "docs/outbound.md",
        "docs/taking-over.md",
        "handlers/README.md",
        "examples/choreography/README.md",
    ];
    for page in PAGES {
        let text = read(page);
        for line in text.split('`').filter(|span| span.starts_with("moontide ") && !span.contains('\n')) {
            check_command(page, line);
            found += 1;
        }
    }
    assert!(found >= 15, "only {found} commands were found");
}

#[test]
fn the_configuration_for_taking_over_is_right() {
    let place = Place::new();
    for (path, script) in shown("docs/taking-over.md") {
        place.file(&format!("handlers/{path}"), &script);
    }
    place.file("moontide.toml", blocks(&read("docs/taking-over.md"), "toml")[0]);
    let vain = "warning: [handlers.\"orders\"] adopt does nothing: only groups on Redis have consumers of others\n";
    place.moontide(&["check", "--bus", "memory:"]).assert().success().stderr(vain);
}

#[test]
fn examples_in_the_helps_are_commands() {
    let mut found = 0;
    let mut open = vec![Cli::command()];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().cloned());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  moontide ")) {
            // A remark stands behind at least two spaces; where a pipe or a redirection leads is not tried.
            let line = [" | ", " > "]
                .iter()
                .fold(line.split("   ").next().unwrap_or(line), |line, end| line.split(end).next().unwrap_or(line));
            check_command(command.get_name(), &format!("moontide {line}"));
            found += 1;
        }
    }
    assert!(found >= 20, "only {found} examples were found");
}

/// Runs `line` in `place` until it succeeds, and gives what it printed: the text lets a reader look again.
fn until_success(place: &Place, line: &str) -> String {
    let began = Instant::now();
    loop {
        let output = place.moontide(&[]).args(&words(line)[1..]).output().expect("it runs");
        if output.status.success() {
            return String::from_utf8(output.stdout).expect("it prints text");
        }
        assert!(began.elapsed() < PATIENCE, "{line}: {}", String::from_utf8_lossy(&output.stderr));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_the_readme_has_typed_works() {
    let text = read("README.md");
    let place = Place::new();
    for (path, script) in shown("README.md") {
        place.file(&format!("handlers/{path}"), &script);
    }
    // The port of the text may be somebody's on this machine.
    let address = format!("127.0.0.1:{}", free_port());
    place.file("moontide.toml", &format!("[http]\nlisten = \"{address}\"\n"));
    let mut host = None;
    let mut answers = Vec::new();
    for line in blocks(&text, "sh").into_iter().flat_map(str::lines) {
        match line.strip_prefix("cargo run --release -- ").map(|rest| format!("moontide {rest}")) {
            Some(command) => answers.push(until_success(&place, &command)),
            // The tests are what runs this one, and the rig takes hours.
            None if line.starts_with("scripts/") => {
                let script = line.split(' ').next().unwrap_or_default();
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
                let syntax = Command::new("bash").arg("-n").arg(script).status().expect("bash is there");
                assert!(syntax.success(), "{line}");
            }
            None if line == "moontide run" => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
                command.current_dir(place.path()).env_clear().arg("run").stderr(Stdio::null());
                host = Some(command.spawn().expect("the host starts"));
                // The other terminal comes when this one serves.
                let live = |rows: &str| rows.contains(r#""state":"live""#);
                let began = Instant::now();
                while !live(&until_success(&place, "moontide handlers --json")) {
                    assert!(began.elapsed() < PATIENCE, "the host does not say that it runs");
                }
            }
            None if line.starts_with("moontide ") => answers.push(until_success(&place, line)),
            None if line.starts_with("curl ") => {
                let line = line.replace("localhost:7100", &address);
                let sent = Command::new("bash").args(["-c", &format!("{line} --fail --silent")]).output();
                assert!(sent.expect("bash is there").status.success(), "{line}");
            }
            // The demo has tests of its own, on servers of their own.
            None if line.ends_with("redis-server --port 7379 &") => {}
            None if line.starts_with("target/release/moontide demo --bus redis://localhost:7379 ") => {
                check_command("README.md", line.trim_start_matches("target/release/"));
            }
            // Needs an engine, which a test machine has not.
            None if line.starts_with("docker ") => {}
            None => panic!("README.md: nobody runs {line:?}"),
        }
    }
    let mut host = host.expect("the README starts a host");
    host.kill().and_then(|()| host.wait()).expect("it ran until now");
    assert_eq!(answers.len(), 3, "the demo, an emit, a look: {answers:?}");
    assert_eq!(answers[2], "1\n", "one greeting was counted");
    let sample = blocks(&text, "").into_iter().find(|block| block.contains("It adds up")).expect("it shows the demo");
    let printed = answers[0].lines().filter(|line| !line.contains(" to do"));
    assert_eq!(
        shape(sample.lines()),
        shape(printed),
        "README.md shows what the demo prints, but for numbers and folders"
    );
}

/// Lines without what differs from run to run: numbers, widths, the folder, empty lines.
fn shape<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let word = |word: &str| match word.trim_end_matches([',', ')']).replace(',', "").parse::<u64>() {
        Ok(_) => "N".to_owned(),
        Err(_) => word.to_owned(),
    };
    let line = |line: &str| {
        let line = line.split(" for the handlers in ").next().unwrap_or(line);
        line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    };
    lines.map(line).filter(|line| !line.is_empty()).collect()
}
