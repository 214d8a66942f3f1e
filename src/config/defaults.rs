//! What stands for the keys that a config leaves out.

use super::{Activation, BatchSize, DataConfig, NetworkConfig, RunConfig, TrainingConfig};

impl RunConfig {
    /// The same config with the default of each key that it leaves out, also of keys that have no meaning in it: what two configs differ in
    /// does not depend on which of them writes its defaults out. Keys without a default stay absent.
    #[must_use]
    pub fn with_defaults(&self) -> Self {
        let batch_size = self.training.batch_size.unwrap_or_else(|| BatchSize::Examples(self.batch_size()));
        Self {
            data: self.data.with_defaults(),
            network: self.network.with_defaults(),
            training: TrainingConfig { batch_size: Some(batch_size), ..self.training.with_defaults() },
            ..self.clone()
        }
    }
}

impl DataConfig {
    fn with_defaults(&self) -> Self {
        let examples =
            if self.has_answers() { self.examples.or_else(|| Some(self.all_examples())) } else { self.examples };
        Self {
            normalization: Some(self.normalization()),
            examples,
            evaluation: Some(self.evaluation()),
            reading: Some(self.reading.unwrap_or_default()),
            ..self.clone()
        }
    }
}

impl NetworkConfig {
    fn with_defaults(&self) -> Self {
        let function = self.function();
        let has_slope = matches!(self.activation, Activation::LeakyRelu | Activation::Prelu);
        Self {
            slope: if has_slope { Some(function.slope) } else { self.slope },
            pieces: if self.activation == Activation::Maxout { Some(function.pieces) } else { self.pieces },
            weight_scale: Some(self.weight_scale()),
            norm_place: Some(self.norm_place()),
            norm_momentum: Some(self.norm_momentum()),
            norm_epsilon: Some(self.norm_epsilon()),
            block_layers: Some(self.block_layers()),
            block_order: Some(self.block_order()),
            branch_scale: Some(self.branch_scale.unwrap_or_default()),
            stem: Some(self.stem()),
            shortcut: Some(self.shortcut.unwrap_or_default()),
            kernels: Some(self.kernels()),
            recurrent_init: Some(self.recurrent_init()),
            recurrent_scale: Some(self.recurrent_scale()),
            forget_bias: Some(self.forget_bias()),
            implementation: Some(self.implementation()),
            ..self.clone()
        }
    }
}

impl TrainingConfig {
    fn with_defaults(&self) -> Self {
        Self {
            beta_1: Some(self.beta_1()),
            beta_2: Some(self.beta_2()),
            smoothing: Some(self.smoothing()),
            epsilon: Some(self.epsilon()),
            start_layers: Some(self.start_layers.unwrap_or_default()),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Assignment, Source};

    fn resolved(overrides: &[&str]) -> RunConfig {
        let text = "[experiment]\nname = \"t\"\n[network]\ndepth = 4\nwidth = 8\nactivation = \"relu\"\nweight_init = \"he\"\n\
                    [training]\nlearning_rate = 0.1\nsteps = 1\n";
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let source = Source::parse(Path::new("c.toml"), text, &overrides).expect("valid");
        source.resolve(&Assignment { levels: Vec::new() }).expect("valid")
    }

    #[test]
    fn a_default_that_is_written_out_is_the_one_that_is_left_out() {
        let norm = ["network.kind=residual", "network.norm=batch"];
        for key in [
            "data.normalization=unit",
            "data.examples=1437",
            "network.weight_scale=1",
            "network.kernels=fused",
            "network.norm_place=before_activation",
            "network.norm_momentum=0.1",
            "network.norm_epsilon=1e-5",
            "network.block_layers=1",
            "network.block_order=pre_activation",
            "network.branch_scale=1",
            "network.stem=true",
            "training.batch_size=32",
        ] {
            let (left_out, written) = (resolved(&norm), resolved(&[&norm[..], &[key]].concat()));
            assert_ne!(left_out, written, "{key}: there is nothing to show");
            assert_eq!(left_out.with_defaults(), written.with_defaults(), "{key}");
        }
    }

    #[test]
    fn what_is_no_default_stays() {
        for key in [
            "data.normalization=none",
            "network.weight_scale=2",
            "network.kernels=stock",
            "training.batch_size=\"full\"",
        ] {
            assert_ne!(resolved(&[]).with_defaults(), resolved(&[key]).with_defaults(), "{key}");
        }
    }
}
