//! The plots of the page, as SVG by hand: bars and marks over a logarithmic scale, and nothing else.
//!
//! docs/decisions/0035 tells why there is no plotting library here.

use std::fmt::Write as _;

use serde_json::Value;

use crate::bench::ids;
use crate::bench::page::{field, lines_of, median};
use crate::bench::store::Store;

/// Pixels: the names on the left, the scale, the texts on the right, a row.
const LEFT: f64 = 170.0;
const SCALE: f64 = 520.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 18.0;
/// Pixels above the first row.
const TOP: f64 = 44.0;

const GOOD: &str = "#2f7d4f";
const BAD: &str = "#b4452f";
const PEER: &str = "#7a5fa3";
const BOUND: &str = "#8a8a8a";

/// A drawing that grows by rows.
struct Plot {
    body: String,
    rows: usize,
    /// Powers of two at the ends of the scale.
    ends: (i32, i32),
}

impl Plot {
    fn new(ends: (i32, i32)) -> Self {
        Plot { body: String::new(), rows: 0, ends }
    }

    /// Where a number is on the scale; what is beyond its ends is at the end.
    fn x(&self, value: f64) -> f64 {
        let (low, high) = (f64::from(self.ends.0), f64::from(self.ends.1));
        LEFT + (value.log2().clamp(low, high) - low) / (high - low) * SCALE
    }

    /// The middle of the row that is drawn.
    fn y(&self) -> f64 {
        TOP + (self.rows as f64 + 0.5) * ROW
    }

    fn text(&mut self, x: f64, anchor: &str, text: &str) {
        let y = self.y() + 4.0;
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    fn bar(&mut self, from: f64, to: f64, colour: &str) {
        let (a, b) = (self.x(from), self.x(to));
        let (x, width, y) = (a.min(b), (a - b).abs().max(1.0), self.y() - 5.0);
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="10" fill="{colour}"/>"#
        );
    }

    /// A thin line over a range, or across the row at one place.
    fn line(&mut self, from: f64, to: f64, colour: &str) {
        let (a, b, y) = (self.x(from), self.x(to), self.y());
        let half = if (a - b).abs() < 0.05 { 7.0 } else { 0.0 };
        let (top, low) = (y - half, y + half);
        let _ = writeln!(
            self.body,
            r#"<line x1="{a:.1}" x2="{b:.1}" y1="{top:.1}" y2="{low:.1}" stroke="{colour}" stroke-width="1.5"/>"#
        );
    }

    fn dot(&mut self, at: f64, colour: &str) {
        let (x, y) = (self.x(at), self.y());
        let _ = writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="{colour}"/>"#);
    }

    /// The finished picture, with a scale whose middle line is at 1.
    fn finish(self, title: &str, below: &str) -> String {
        let bottom = TOP + self.rows as f64 * ROW;
        let (width, height) = (LEFT + SCALE + RIGHT, bottom + 40.0);
        let mut scale = String::new();
        for power in self.ends.0..=self.ends.1 {
            let x = self.x(f64::from(power).exp2());
            let label =
                if power < 0 { format!("1/{}", 1u64 << -power) } else { format!("{}", 1u64 << power) };
            let stroke = if power == 0 { "#333" } else { "#ddd" };
            let _ = writeln!(
                scale,
                r#"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}" stroke="{stroke}"/>"#
            );
            let y = bottom + 14.0;
            let _ = writeln!(scale, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{label}</text>"#);
        }
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="10" y="20" font-size="14">{title}</text>
{scale}{}<text x="{LEFT}" y="{}">{below}</text>
</svg>
"##,
            self.body,
            bottom + 30.0
        )
    }
}

fn number(value: &Value, name: &str) -> Option<f64> {
    value.get(name).and_then(Value::as_f64).filter(|number| *number > 0.0)
}

/// How far each figure is beyond its pass line, or short of it.
pub fn lines(store: &Store) -> String {
    let mut plot = Plot::new((-4, 7));
    for id in ids() {
        let Some(figure) = store.get(id) else { continue };
        let more = figure.get("more").and_then(Value::as_bool).unwrap_or(false);
        for line in lines_of(figure) {
            let (Some(ratio), Some(pass)) = (number(line, "ratio"), number(line, "pass")) else { continue };
            let beyond = |ratio: f64| if more { ratio / pass } else { pass / ratio };
            let against = match field(line, "against") {
                "number" => id.to_owned(),
                other => format!("{id}, beside the {other}"),
            };
            let by = beyond(ratio);
            plot.text(LEFT - 8.0, "end", &against);
            plot.bar(1.0, by, if by >= 1.0 { GOOD } else { BAD });
            if let (Some(low), Some(high)) = (number(line, "low"), number(line, "high")) {
                plot.line(beyond(low), beyond(high), "#111");
            }
            if let Some(stretch) = number(line, "stretch") {
                plot.line(beyond(stretch), beyond(stretch), PEER);
            }
            plot.text(LEFT + SCALE + 8.0, "start", &format!("{by:.2} x"));
            plot.rows += 1;
        }
    }
    plot.finish(
        "How far beyond the pass line (1; to the right is better)",
        "thin line: lowest to highest round; upright mark: the stretch line; the scale doubles",
    )
}

/// What the peer and the bound take where ours takes 1.
pub fn sides(store: &Store) -> String {
    let mut plot = Plot::new((-6, 7));
    for id in ids() {
        let Some(figure) = store.get(id) else { continue };
        let more = figure.get("more").and_then(Value::as_bool).unwrap_or(false);
        let Some(ours) = median(figure, "ours").filter(|ours| *ours > 0.0) else { continue };
        let cost = |name: &str| {
            let other = median(figure, name).filter(|other| *other > 0.0)?;
            Some(if more { ours / other } else { other / ours })
        };
        let (peer, bound) = (cost("peer"), cost("bound"));
        if peer.is_none() && bound.is_none() {
            continue;
        }
        plot.text(LEFT - 8.0, "end", id);
        for (at, colour) in [(bound, BOUND), (peer, PEER), (Some(1.0), GOOD)] {
            if let Some(at) = at {
                plot.dot(at, colour);
            }
        }
        let shown = peer.map_or(String::new(), |peer| format!("peer {peer:.1} x"));
        plot.text(LEFT + SCALE + 8.0, "start", &shown);
        plot.rows += 1;
    }
    plot.finish(
        "Time, memory or instructions beside ours (1; to the right costs more)",
        "green: ours; violet: the peer; grey: the bound; the scale doubles",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_doubles_and_ends() {
        let plot = Plot::new((-1, 1));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(plot.x(0.5), LEFT) && near(plot.x(2.0), LEFT + SCALE));
        assert!(near(plot.x(1.0), LEFT + SCALE / 2.0) && near(plot.x(1000.0), LEFT + SCALE));
    }
}
