//! Small line charts, as SVG.

use maud::{Markup, html};

use crate::observe::history::Series;

const WIDTH: f64 = 180.0;
const HEIGHT: f64 = 32.0;

/// Returns a chart of series with one scale, which begins at 0. `label` says what it shows, for those who cannot see it. The
/// second series is that of failures.
pub(super) fn chart(series: &[&Series], label: &str) -> Markup {
    let most =
        series.iter().flat_map(|series| series.iter().flatten()).fold(0.0, |a: f64, b| a.max(*b));
    let label = format!("{label}; at most {}", (most * 10.0).round() / 10.0);
    html! {
        svg .chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(label) {
            title { (label) }
            line x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for (index, values) in series.iter().enumerate() {
                @for points in lines(values, most) {
                    polyline .failed[index == 1] points=(points) {}
                }
            }
        }
    }
}

/// Returns the points of a line for each part of a series without a gap.
fn lines(values: &Series, most: f64) -> Vec<String> {
    let step = WIDTH / values.len().saturating_sub(1).max(1) as f64;
    let point = |index: usize, value: f64| {
        let y = HEIGHT - 1.0 - value / most.max(1.0) * (HEIGHT - 2.0);
        format!("{:.1},{y:.1}", index as f64 * step)
    };
    let mut lines = vec![Vec::new()];
    for (index, value) in values.iter().enumerate() {
        match value {
            Some(value) => lines.last_mut().expect("there is a line").push(point(index, *value)),
            None => lines.push(Vec::new()),
        }
    }
    lines.into_iter().filter(|line| line.len() > 1).map(|line| line.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_a_line() {
        let values = vec![Some(0.0), Some(10.0), None, Some(5.0), Some(5.0), None, Some(1.0)];
        assert_eq!(lines(&values, 10.0), ["0.0,31.0 30.0,1.0", "90.0,16.0 120.0,16.0"]);
        assert_eq!(lines(&vec![None; 3], 0.0), Vec::<String>::new());
    }
}
