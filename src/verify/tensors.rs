//! Parameters and gradients as numbers, from safetensors.

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use super::VerifyError;

/// Tensors by name, in f64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors {
    found: BTreeMap<String, Vec<f64>>,
}

impl Tensors {
    /// From the bytes of a saved network, whose numbers are f32.
    ///
    /// # Errors
    ///
    /// If they are not safetensors.
    pub fn read(bytes: &[u8]) -> Result<Self, VerifyError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| VerifyError::Unreadable(error.to_string()))?;
        let numbers = |bytes: &[u8]| -> Vec<f64> {
            let number = |four: &[u8]| f64::from(f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            bytes.chunks_exact(4).map(number).collect()
        };
        Ok(Self { found: file.iter().map(|(name, view)| (name.to_owned(), numbers(view.data()))).collect() })
    }

    /// The elements of a tensor, row by row.
    ///
    /// # Errors
    ///
    /// If there is none of this name.
    pub fn get(&self, name: &str) -> Result<&[f64], VerifyError> {
        let missing = || VerifyError::Unreadable(format!("the run has left no `{name}`"));
        self.found.get(name).map(Vec::as_slice).ok_or_else(missing)
    }

    /// Every tensor with its name, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.found.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }
}

/// The Euclidean norm.
pub fn l2(values: impl IntoIterator<Item = f64>) -> f64 {
    // Squares of f32 neither overflow nor vanish in f64.
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
impl FromIterator<(&'static str, Vec<f64>)> for Tensors {
    fn from_iter<T: IntoIterator<Item = (&'static str, Vec<f64>)>>(named: T) -> Self {
        Self { found: named.into_iter().map(|(name, values)| (name.to_owned(), values)).collect() }
    }
}
