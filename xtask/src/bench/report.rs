//! One line per figure: ours, the peer's, the bound's, the ratios and the verdict.
//!
//! A ratio is that of the medians over all rounds; the range behind it is the lowest and highest
//! ratio of a single round.

use serde_json::{Value, json};

/// What a figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// The other program.
    Peer,
    /// The least that is possible.
    Bound,
    /// A number.
    Fixed,
}

/// A line that a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Compared with what.
    pub against: Against,
    /// The ratio, or for [`Against::Fixed`] the number, that passes; `None` if only a stretch is set.
    pub pass: Option<f64>,
    /// The one that would be better still.
    pub stretch: Option<f64>,
}

/// One target: what is measured and how good it has to be.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Such as `P1`.
    pub id: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// Unit of the figures.
    pub unit: &'static str,
    /// Digits after the point.
    pub digits: usize,
    /// Whether more is better.
    pub more: bool,
    /// The lines, of which all must be reached.
    pub lines: &'static [Line],
}

/// The rounds of one side, or why there are none.
pub type Rounds = Result<Vec<f64>, String>;

/// A target with its measured rounds.
#[derive(Debug)]
pub struct Outcome {
    /// What was measured.
    pub target: &'static Target,
    /// Ours.
    pub ours: Vec<f64>,
    /// The peer's, if the target has one.
    pub peer: Option<Rounds>,
    /// The bound's, if the target has one.
    pub bound: Option<Rounds>,
    /// More to say, such as latencies.
    pub notes: Vec<String>,
}

/// How a comparison came out.
struct Compared {
    text: String,
    ratio: f64,
    /// Lowest and highest of a single round.
    range: (f64, f64),
    pass: bool,
    stretch: bool,
}

impl Outcome {
    /// The line to print, with its notes below.
    pub fn text(&self) -> String {
        let Target { id, what, unit, .. } = self.target;
        let mut text = format!("{id:<4} {what}: {} {unit}", self.number(median(&self.ours)));
        let sides = [("peer", &self.peer), ("bound", &self.bound)];
        for (name, side) in sides {
            match side {
                Some(Ok(rounds)) => text += &format!(", {name} {}", self.number(median(rounds))),
                Some(Err(why)) => text += &format!(", {name} SKIPPED ({why})"),
                None => {}
            }
        }
        for compared in self.compared() {
            text += &format!("; {}", compared.text);
        }
        text += &format!(": {}", self.verdict());
        for note in &self.notes {
            text += &format!("\n       {note}");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let side = |side: &Option<Rounds>| match side {
            Some(Ok(rounds)) => json!({"rounds": rounds, "median": median(rounds)}),
            Some(Err(why)) => json!({"skipped": why}),
            None => Value::Null,
        };
        let lines = self.target.lines.iter().filter_map(|line| {
            let Compared { ratio, range: (low, high), pass, stretch, .. } = self.compare(line)?;
            Some(json!({
                "against": line.against.word(), "ratio": ratio, "low": low, "high": high,
                "pass": line.pass, "passed": pass, "stretch": line.stretch, "stretched": stretch,
            }))
        });
        json!({
            "id": self.target.id,
            "what": self.target.what,
            "unit": self.target.unit,
            "digits": self.target.digits,
            "more": self.target.more,
            "lines": lines.collect::<Vec<_>>(),
            "ours": {"rounds": self.ours, "median": median(&self.ours)},
            "peer": side(&self.peer),
            "bound": side(&self.bound),
            "verdict": self.verdict(),
            "notes": self.notes,
        })
    }

    /// Why a side is missing, if one is: such an outcome takes the place of no whole one.
    pub fn missing(&self) -> Option<&str> {
        [&self.peer, &self.bound]
            .into_iter()
            .flatten()
            .find_map(|side| side.as_ref().err().map(String::as_str))
    }

    /// `PASS`, `MISS`, or `SKIPPED` when a line has nothing to be compared with and no other is missed.
    pub fn verdict(&self) -> &'static str {
        let compared: Vec<Compared> = self.compared().collect();
        if compared.iter().any(|compared| !compared.pass) {
            "MISS"
        } else if compared.len() < self.target.lines.len() || compared.is_empty() {
            "SKIPPED"
        } else if compared.iter().all(|compared| compared.stretch) {
            "PASS, stretch too"
        } else {
            "PASS"
        }
    }

    fn compared(&self) -> impl Iterator<Item = Compared> {
        self.target.lines.iter().filter_map(|line| self.compare(line))
    }

    fn compare(&self, line: &Line) -> Option<Compared> {
        let (ratio, range, mut text) = match line.against {
            Against::Fixed => (median(&self.ours), ends(&self.ours), String::new()),
            Against::Peer => self.ratio("peer", self.peer.as_ref()?.as_ref().ok()?),
            Against::Bound => self.ratio("bound", self.bound.as_ref()?.as_ref().ok()?),
        };
        let reached = |limit: f64| if self.target.more { ratio >= limit } else { ratio <= limit };
        let sign = if self.target.more { ">=" } else { "<=" };
        let limit = |limit: f64| match line.against {
            Against::Fixed => self.number(limit),
            _ => two(limit),
        };
        for (name, limit) in [("pass", line.pass.map(limit)), ("stretch", line.stretch.map(limit))] {
            if let Some(limit) = limit {
                text += &format!("{}{name} {sign} {limit}", if text.is_empty() { "" } else { ", " });
            }
        }
        let pass = line.pass.is_none_or(reached);
        Some(Compared { text, ratio, range, pass, stretch: line.stretch.is_none_or(reached) })
    }

    fn ratio(&self, name: &str, other: &[f64]) -> (f64, (f64, f64), String) {
        let ratio = median(&self.ours) / median(other);
        let single: Vec<f64> = self.ours.iter().zip(other).map(|(ours, other)| ours / other).collect();
        let (low, high) = ends(&single);
        (ratio, (low, high), format!("{ratio:.2} x {name} ({low:.2} to {high:.2})"))
    }

    fn number(&self, value: f64) -> String {
        number(value, self.target.digits)
    }

    /// The ratio of the medians, ours by the peer's.
    pub fn to_peer(&self) -> Option<f64> {
        Some(median(&self.ours) / median(self.peer.as_ref()?.as_ref().ok()?))
    }
}

impl Against {
    /// `peer`, `bound` or `number`.
    fn word(self) -> &'static str {
        match self {
            Against::Peer => "peer",
            Against::Bound => "bound",
            Against::Fixed => "number",
        }
    }
}

/// The lowest and the highest.
fn ends(rounds: &[f64]) -> (f64, f64) {
    let fold = |pick: fn(f64, f64) -> f64| rounds.iter().copied().reduce(pick).unwrap_or(f64::NAN);
    (fold(f64::min), fold(f64::max))
}

/// A limit, with no more than two digits after the point.
pub fn two(limit: f64) -> String {
    let text = format!("{limit:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A figure with so many digits after the point; before it in groups of three, for the eye.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}

/// The middle of the rounds; of two middles the mean.
pub fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.wrapping_sub(1)), at(half)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    static RATE: Target = Target {
        id: "P0",
        what: "calls",
        unit: "calls/s",
        digits: 0,
        more: true,
        lines: &[
            Line { against: Against::Peer, pass: Some(4.0), stretch: Some(5.5) },
            Line { against: Against::Bound, pass: Some(0.7), stretch: None },
        ],
    };

    fn outcome(ours: &[f64], peer: Rounds) -> Outcome {
        let bound = Some(Ok(vec![10_000.0, 12_000.0]));
        Outcome { target: &RATE, ours: ours.to_vec(), peer: Some(peer), bound, notes: Vec::new() }
    }

    #[test]
    fn a_line_names_figures_ratios_and_verdict() {
        let text = outcome(&[8000.0, 8800.0], Ok(vec![2000.0, 2200.0])).text();
        assert_eq!(
            text,
            "P0   calls: 8 400 calls/s, peer 2 100, bound 11 000; 4.00 x peer (4.00 to 4.00), pass >= 4, \
             stretch >= 5.5; 0.76 x bound (0.73 to 0.80), pass >= 0.7: PASS"
        );
    }

    #[test]
    fn one_missed_line_is_a_miss_and_a_missing_peer_is_no_pass() {
        assert_eq!(outcome(&[8000.0], Ok(vec![2001.0])).verdict(), "MISS");
        assert_eq!(outcome(&[8000.0], Err("absent".into())).verdict(), "SKIPPED");
        assert_eq!(outcome(&[8000.0], Err("absent".into())).missing(), Some("absent"));
        assert_eq!(outcome(&[8000.0], Ok(vec![2000.0])).missing(), None);
        assert!(outcome(&[8000.0], Err("absent".into())).text().contains("peer SKIPPED (absent)"));
        assert_eq!(outcome(&[7000.0], Err("absent".into())).verdict(), "MISS");
    }

    #[test]
    fn the_median_of_an_even_number_of_rounds_lies_between() {
        assert!((median(&[1.0, 9.0, 3.0]) - 3.0).abs() < 1e-9);
        assert!((median(&[1.0, 9.0, 3.0, 5.0]) - 4.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
