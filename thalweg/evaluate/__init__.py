"""Measure models: known densities and modes, fidelity of images, detection of outliers."""

from thalweg.evaluate.accuracy import Accuracy, accuracy, wilson
from thalweg.evaluate.density import (
    DensityReport,
    EnergyDistance,
    ModeCoverage,
    density,
    energy_distance,
    energy_distance_interval,
    mode_coverage,
)
from thalweg.evaluate.extractor import Extractor, ExtractorConfig, extractor, train_extractor
from thalweg.evaluate.fidelity import FidelityReport, class_accuracy, frechet_distance, frechet_from_features
from thalweg.evaluate.ood import OODReport, energies, ood, outliers

__all__ = [
    "Accuracy",
    "DensityReport",
    "EnergyDistance",
    "Extractor",
    "ExtractorConfig",
    "FidelityReport",
    "ModeCoverage",
    "OODReport",
    "accuracy",
    "class_accuracy",
    "density",
    "energies",
    "energy_distance",
    "energy_distance_interval",
    "extractor",
    "frechet_distance",
    "frechet_from_features",
    "mode_coverage",
    "ood",
    "outliers",
    "train_extractor",
    "wilson",
]
