//! Numbers and names as people read them.

/// A number with so many significant digits; very small and very large ones with an exponent.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let exponent = value.abs().log10().floor() as i32;
    if (-3..6).contains(&exponent) {
        let decimals = digits as i32 - 1 - exponent;
        let unit = 10f64.powi(-decimals.min(0));
        let decimals = decimals.max(0) as usize;
        // What stands before the point is rounded too.
        let rounded = if unit > 1.0 { (value / unit).round() * unit } else { value };
        return format!("{rounded:.decimals$}");
    }
    format!("{value:.*e}", digits.saturating_sub(1))
}

/// A factor without its section: `network.depth` is `depth`.
pub fn short_name(factor: &str) -> &str {
    factor.rsplit_once('.').map_or(factor, |(_, name)| name)
}

/// A power of ten in superscript digits: 10⁻³.
pub fn power_of_ten(exponent: i64) -> String {
    let superscript = |digit: char| match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        other => char::from_u32('⁰' as u32 + other.to_digit(10).unwrap_or(0)).unwrap_or(other),
    };
    let digits: String = exponent.to_string().chars().map(superscript).collect();
    format!("10{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_significant_digits() {
        assert_eq!(significant(0.01234, 3), "0.0123");
        assert_eq!(significant(3.7e-5, 2), "3.7e-5");
        assert_eq!(significant(-123.4, 2), "-120");
        assert_eq!(significant(148_323.0, 3), "148000");
        assert_eq!(significant(1_234_567.0, 3), "1.23e6");
        assert_eq!(significant(0.0, 3), "0");
    }

    #[test]
    fn powers_of_ten_are_written_in_superscript() {
        assert_eq!(power_of_ten(-10), "10⁻¹⁰");
        assert_eq!(power_of_ten(234), "10²³⁴");
    }
}
