//! Gradients through time where a recurrent network does not leave its state of rest.

use super::activation::sigmoid;

/// The norm of the gradient with respect to the state of `time_steps` before by that with respect to the last one, of a vanilla RNN
/// at h = 0 whose recurrent matrix is `gain` times an orthogonal one, and whose activation function has the slope `slope` at 0 (1 of
/// tanh): (`gain` `slope`)^`time_steps`.
///
/// # Source
///
/// Pascanu et al. 2013, section 2.1, whose bound it meets; exact at h = 0, a bound elsewhere, since tanh' is at most 1.
pub fn vanilla_rnn(gain: f64, slope: f64, time_steps: usize) -> f64 {
    (gain * slope).powi(time_steps as i32)
}

/// The same of the cell state of an LSTM whose gates do not see their input, all weights being 0: the forget gate is
/// sigmoid(`forget_bias`) at every time step, and d `c_T` / d `c_0` its power.
///
/// # Source
///
/// Gers et al. 2000, equation 5; exact for weights of 0, and for small ones the linearization.
pub fn lstm_cell(forget_bias: f64, time_steps: usize) -> f64 {
    sigmoid(forget_bias).powi(time_steps as i32)
}

/// The same of the state of a GRU without weights, whose update gate keeps the old state:
/// sigmoid(`update_bias`)^`time_steps`.
///
/// # Source
///
/// Cho et al. 2014, equation 7; exact for weights of 0.
pub fn gru(update_bias: f64, time_steps: usize) -> f64 {
    sigmoid(update_bias).powi(time_steps as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 2e-4, "{found:e}, expected {expected:e}");
    }

    #[test]
    fn a_hundred_time_steps_leave_what_is_known() {
        assert_close(vanilla_rnn(0.9, 1.0, 100), 2.6561e-5);
        assert_close(vanilla_rnn(1.1, 1.0, 100), 13780.6);
        for (bias, expected) in [(0.0, 7.889e-31), (1.0, 2.484e-14), (2.0, 3.073e-6), (3.0, 7.760e-3)] {
            assert_close(lstm_cell(bias, 100), expected);
        }
        assert_close(gru(2.0, 50), 1.7530e-3);
    }
}
