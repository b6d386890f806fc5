//! Lines of `moontide emit --file`.

use moontide::draft::Draft;

use super::{defaults, lies_as_it_is};

pub fn run(line: &[u8]) {
    let finished = Draft::parse(line).and_then(|draft| draft.finish(&defaults(), 0));
    match finished {
        Ok(emit) => {
            assert_eq!(emit.stream, format!("events:{}", emit.event.kind));
            lies_as_it_is(&emit.event);
        }
        Err(problem) => {
            let begins = ["has ", "is ", "cannot "].iter().any(|start| problem.starts_with(start));
            assert!(begins, "\"line 7 {problem}\" is no sentence");
        }
    }
}
