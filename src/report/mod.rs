//! What people read: a table in the terminal and figures in SVG.

mod axis;
mod bars;
mod chart;
mod color;
mod comparison;
mod export;
mod figures;
mod format;
mod gate;
mod heat_map;
mod page;
mod table;

pub use comparison::{Environments, Side, SideBySide, comparison_csv, comparison_figure, comparison_table};
pub use export::{
    ExportError, Exported, Exporter, Measured, Measurements, Row, Timing, export_as, find_format, of_criterion,
    of_experiment,
};
pub use figures::{FigureError, draw_figures};
pub use format::{short_name, significant};
pub use gate::{baseline_table, deviation_table, verdict_table};
pub use table::{adapter_table, case_table, plan_table, summary_table, verify_table};
