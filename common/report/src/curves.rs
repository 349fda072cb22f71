//! Curves over the steps as inline SVG. Ink and grid take their colours from the page, so that both a light and a dark
//! page are legible.

use plotters::coord::Shift;
use plotters::prelude::*;

type Fault = DrawingAreaErrorKind<std::io::Error>;

/// Colours that no curve has, replaced by the page's own after drawing.
const INK: RGBColor = RGBColor(1, 2, 3);
const GRID: RGBColor = RGBColor(3, 2, 1);

/// Curves have at most so many points: more than the pixels of a chart's width say nothing more.
const POINTS: usize = 480;
const SIZE: (u32, u32) = (420, 200);

/// The colours of curves and phases, legible on white and on black.
pub(crate) const SERIES: [(u8, u8, u8); 10] = [
    (59, 130, 246),
    (249, 115, 22),
    (34, 160, 94),
    (217, 70, 239),
    (234, 179, 8),
    (239, 68, 68),
    (20, 184, 166),
    (139, 92, 246),
    (132, 130, 120),
    (236, 72, 153),
];

/// `#rrggbb` of a series.
pub(crate) fn hex(series: usize) -> String {
    let (r, g, b) = SERIES[series % SERIES.len()];
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Values over steps; what is not finite leaves a gap.
#[derive(Debug, Clone)]
pub struct Curve {
    /// (step, value), in the order of the steps.
    pub points: Vec<(f64, f64)>,
    /// Steps hold until the next point (K) instead of being joined.
    pub stairs: bool,
    /// Values scatter: a smoothed curve is drawn over the pale original.
    pub noisy: bool,
    /// The vertical axis starts at zero.
    pub from_zero: bool,
}

/// One curve as SVG, to stand inside a page that defines `--grid`; `None` when there is nothing to draw.
#[must_use]
pub fn curve(curve: &Curve) -> Option<String> {
    let points: Vec<_> = curve.points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
    if points.is_empty() {
        return None;
    }
    let drawn = thin(&points);
    let (x, y) = (range(drawn.iter().map(|p| p.0), false), range(drawn.iter().map(|p| p.1), curve.from_zero));
    svg(|area| {
        let mut chart = axes(area, x.clone(), y.clone())?;
        let colour = colour(0);
        let joined = if curve.stairs { stairs(&drawn) } else { drawn.clone() };
        if curve.noisy && drawn.len() > 10 {
            chart.draw_series(LineSeries::new(joined, colour.mix(0.3).stroke_width(1)))?;
            chart.draw_series(LineSeries::new(smooth(&drawn), colour.stroke_width(2)))?;
        } else {
            chart.draw_series(LineSeries::new(joined, colour.stroke_width(2)))?;
        }
        if drawn.len() == 1 {
            chart.draw_series(drawn.iter().map(|p| Circle::new(*p, 3, colour.filled())))?;
        }
        Ok(())
    })
}

/// Layers stacked over each other: `layers[i][j]` is the height of layer i at `x[j]`.
pub(crate) fn stack(x: &[f64], layers: &[Vec<f64>]) -> Option<String> {
    if x.is_empty() || layers.is_empty() {
        return None;
    }
    let mut tops = vec![vec![0.0; x.len()]];
    for layer in layers {
        let below = &tops[tops.len() - 1];
        tops.push(below.iter().zip(layer).map(|(a, b)| a + b.max(0.0)).collect());
    }
    let all = tops[tops.len() - 1].iter().copied();
    let (across, up) = (range(x.iter().copied(), false), range(all, true));
    svg(|area| {
        let mut chart = axes(area, across.clone(), up.clone())?;
        for (i, pair) in tops.windows(2).enumerate() {
            let upper = x.iter().copied().zip(pair[1].iter().copied());
            let lower = x.iter().copied().zip(pair[0].iter().copied()).rev();
            chart.draw_series(std::iter::once(Polygon::new(
                upper.chain(lower).collect::<Vec<_>>(),
                colour(i).mix(0.85),
            )))?;
        }
        Ok(())
    })
}

fn colour(series: usize) -> RGBColor {
    let (r, g, b) = SERIES[series % SERIES.len()];
    RGBColor(r, g, b)
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn axes<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
) -> Result<Chart<'a, 'b>, Fault> {
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(16)
        .x_label_area_size(26)
        .y_label_area_size(56)
        .build_cartesian_2d(x, y)?;
    let text = ("sans-serif", 15).into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|v| label(*v))
        .y_label_formatter(&|v| label(*v))
        .label_style(text)
        .draw()?;
    Ok(chart)
}

fn svg<'b>(draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Fault> + 'b) -> Option<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        // Drawing into a string cannot fail; should a range be odd enough to, the page does without the chart.
        draw(&area).and_then(|()| area.present()).ok()?;
    }
    let text = text.replace("#010203", "currentColor").replace("#030201", "var(--grid)");
    let (w, h) = SIZE;
    let from = format!("<svg width=\"{w}\" height=\"{h}\" ");
    Some(text.replacen(&from, "<svg role=\"img\" ", 1))
}

/// A little room around the values; a flat curve gets some height.
fn range(values: impl Iterator<Item = f64>, from_zero: bool) -> std::ops::Range<f64> {
    let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if from_zero {
        low = low.min(0.0);
    }
    let room = if high > low { (high - low) * 0.03 } else { high.abs().max(1e-12) * 0.05 };
    if !(from_zero && low == 0.0) {
        low -= room;
    }
    high += room;
    low..high
}

/// Few digits, and none that say nothing.
fn label(v: f64) -> String {
    if v == 0.0 {
        return "0".into();
    }
    let digits = match v.abs() {
        a if !(1e-4..1e7).contains(&a) => return format!("{v:.1e}"),
        a if a >= 100.0 => 0,
        a if a >= 1.0 => 2,
        a if a >= 0.01 => 4,
        _ => 6,
    };
    let text = format!("{v:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Means of neighbouring points when there are too many.
pub(crate) fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |run: &[(f64, f64)], part: fn(&(f64, f64)) -> f64| run.iter().map(part).sum::<f64>() / run.len() as f64;
    points.chunks(size).map(|run| (mean(run, |p| p.0), mean(run, |p| p.1))).collect()
}

fn stairs(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut joined: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
    for (x, y) in points {
        if let Some((_, before)) = joined.last().copied() {
            joined.push((*x, before));
        }
        joined.push((*x, *y));
    }
    joined
}

/// Mean over a window of a twentieth of the run, centred, narrower at the ends.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = (points.len() / 40).max(2);
    let window = |i: usize| {
        let reach = half.min(i).min(points.len() - 1 - i);
        let run = &points[i - reach..=i + reach];
        run.iter().map(|p| p.1).sum::<f64>() / run.len() as f64
    };
    points.iter().enumerate().map(|(i, p)| (p.0, window(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(points: Vec<(f64, f64)>) -> Curve {
        Curve { points, stairs: false, noisy: false, from_zero: false }
    }

    #[test]
    fn odd_curves_are_drawn_or_left_out() {
        assert!(curve(&plain(vec![])).is_none());
        assert!(curve(&plain(vec![(0.0, f64::NAN)])).is_none());
        for points in [vec![(0.0, 0.0)], vec![(0.0, 5.0), (1.0, 5.0)], vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 1e-9)]] {
            let svg = curve(&plain(points)).unwrap();
            assert!(svg.starts_with("<svg") && svg.contains("currentColor") && !svg.contains("#010203"), "{svg}");
        }
        assert!(stack(&[], &[]).is_none());
        assert!(stack(&[0.0, 1.0], &[vec![1.0, 2.0], vec![0.5, 0.1]]).unwrap().contains("<polygon"));
    }

    #[test]
    fn labels_are_short() {
        let labels: Vec<_> = [0.0, 0.99, 1.0, 32.0, 1500.0, 1e-6, 0.0012].map(label).into();
        assert_eq!(labels, ["0", "0.99", "1", "32", "1500", "1.0e-6", "0.0012"]);
    }

    #[test]
    fn long_runs_are_thinned_evenly() {
        let points: Vec<_> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS && thinned.iter().all(|p| (p.1 - 1.0).abs() < 1e-9));
    }
}
