//! Workgroups that have some units of a layer with all their rows, or some rows with all their units.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// Units that a workgroup takes at once: the threads beside each other.
pub const UNITS: u32 = 32;
/// Rows that it takes at once: the threads of a unit.
pub const ROWS: u32 = 8;

/// Numbers that a thread adds up before it adds their sum to others: a long sum loses digits.
pub const BLOCK: usize = 64;

/// The sum over the threads of a unit, which all of them get. All threads of the workgroup must come here.
#[cube]
pub fn over_rows(shared: &mut [f32], x: f32) -> f32 {
    sync_cube();
    shared[UNIT_POS as usize] = x;
    sync_cube();
    let mut sum = 0.0f32;
    #[unroll]
    for row in 0..ROWS as usize {
        sum += shared[row * UNITS as usize + UNIT_POS_X as usize];
    }
    sum
}

/// The sum over the threads of a row, which all of them get. All threads of the workgroup must come here.
#[cube]
pub fn over_units(shared: &mut [f32], x: f32) -> f32 {
    sync_cube();
    shared[UNIT_POS as usize] = x;
    sync_cube();
    let mut sum = 0.0f32;
    #[unroll]
    for unit in 0..UNITS as usize {
        sum += shared[UNIT_POS_Y as usize * UNITS as usize + unit];
    }
    sum
}
