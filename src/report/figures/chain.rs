//! The links of chains of single neurons.

use super::gathered::{GEOMETRIC_SPREAD, Gathered};
use super::layout::{Configuration, Layout, left_out};
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line, Panel, Style};
use crate::schema::LinkRow;

/// The most lines of the one panel.
const MAX_LINES: usize = 14;

/// The factor that each link puts on the gradient: a line a configuration as f64 has it, with the markers of the device.
pub fn chain(layout: &Layout<'_>) -> Chart {
    let measured = |configuration: &&Configuration<'_>| configuration.runs.iter().any(|run| !run.rows.links.is_empty());
    let chains: Vec<&Configuration<'_>> = layout.configurations.iter().filter(measured).collect();
    let shown = &chains[..chains.len().min(MAX_LINES)];
    let x = Axis { label: "link (1 is nearest to the input)".to_owned(), scale: Scale::Count };
    let y = Axis { label: "|w φ'(z)|".to_owned(), scale: Scale::Log };
    let subtitle = format!("{GEOMETRIC_SPREAD}{}", left_out(chains.len() - shown.len()));
    let mut chart = layout.chart("factor of each link of the chain", subtitle, x, y);
    let name = |title: &str| if title.is_empty() { layout.title.clone() } else { title.to_owned() };
    chart.legend = shown.iter().map(|chain| name(&chain.title)).collect();
    let styles = [(Style::Solid, "on the host, in f64"), (Style::Markers, "on the device")];
    chart.styles = styles.map(|(style, name)| (style, name.to_owned())).to_vec();
    let mut lines = Vec::new();
    for (color, chain) in shown.iter().enumerate() {
        let host = factors(chain, |link| Some(link.factor)).log_line(color);
        let device = factors(chain, |link| link.factor_on_device).log_line(color);
        lines.push(Line { bare: true, ..host });
        lines.push(Line { joined: false, ..device });
    }
    chart.panels = if lines.is_empty() { Vec::new() } else { vec![Panel { title: String::new(), lines }] };
    chart
}

fn factors(chain: &Configuration<'_>, factor: fn(&LinkRow) -> Option<f64>) -> Gathered {
    let mut gathered = Gathered::default();
    for link in chain.runs.iter().flat_map(|run| &run.rows.links) {
        gathered.add(link.link as f64 + 1.0, factor(link).map(f64::abs));
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::super::tests::{link_row, record};
    use super::*;

    #[test]
    fn a_negative_factor_is_drawn_by_its_absolute_value_and_the_device_as_markers() {
        let mut run = record(&[]);
        run.rows.links = vec![link_row(0, -2.0, Some(-2.1)), link_row(1, 4.0, None)];
        let runs = [run];
        let chart = chain(&Layout::new(&runs));
        let [host, device] = &chart.panels[0].lines[..] else { panic!("{:?}", chart.panels) };
        assert_eq!(host.points.iter().map(|point| point.x).collect::<Vec<_>>(), [1.0, 2.0]);
        assert!((host.points[0].y - 2.0).abs() < 1e-12 && host.joined && host.bare);
        assert!((device.points[0].y - 2.1).abs() < 1e-12 && !device.joined && !device.bare);
        assert_eq!(device.nonfinite, [2.0]);
    }

    #[test]
    fn more_than_14_chains_are_not_drawn_and_the_subtitle_says_so() {
        let runs: Vec<_> = (0..16)
            .map(|number| {
                let mut run = record(&[("network.weight_scale", &number.to_string())]);
                run.rows.links = vec![link_row(0, 1.0, Some(1.0))];
                run
            })
            .collect();
        let chart = chain(&Layout::new(&runs));
        assert_eq!((chart.legend.len(), chart.panels[0].lines.len()), (14, 28));
        assert_eq!(chart.legend[3], "weight_scale = 3");
        assert!(chart.heading.subtitle.contains("2 more configurations are left out"), "{}", chart.heading.subtitle);
    }
}
