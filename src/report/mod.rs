//! What people read: a table in the terminal and figures in SVG.

mod chart;
mod figures;
mod format;
mod table;

pub use figures::{FigureError, draw_figures};
pub use format::{short_name, significant};
pub use table::{adapter_table, plan_table, summary_table};
