//! Tables of Markdown, and numbers that can be read.

pub struct Table {
    lines: Vec<String>,
}

impl Table {
    pub fn new(heads: &[&str]) -> Self {
        let rule = heads.iter().map(|_| "---").collect::<Vec<_>>();
        Self { lines: vec![line(heads), line(&rule)] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.lines.push(line(&cells));
    }

    /// Says so if nothing was run that belongs in it.
    pub fn text(&self) -> String {
        if self.lines.len() == 2 { "Not run.".to_owned() } else { self.lines.join("\n") }
    }
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.as_ref().replace('|', "\\|")).collect();
    format!("| {} |", cells.join(" | "))
}

/// 1234567 as 1,234,567.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_comma_after_every_third_digit() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn an_empty_table_says_that_nothing_was_run() {
        let mut table = Table::new(&["a", "b"]);
        assert_eq!(table.text(), "Not run.");
        table.row(vec!["1".into(), "x|y".into()]);
        assert_eq!(table.text(), "| a | b |\n| --- | --- |\n| 1 | x\\|y |");
    }
}
