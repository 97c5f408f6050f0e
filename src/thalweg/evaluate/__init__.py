"""Measure models: densities, likelihood, fidelity, outliers, classification, modes, restoration, latents, cost."""

from thalweg.evaluate.accuracy import Accuracy, accuracy, wilson
from thalweg.evaluate.bases import FlowEnergy, Gaussian, fitted_base
from thalweg.evaluate.bins import Bins, dequantise, grey_bins
from thalweg.evaluate.calibration import Calibration, calibration, calibration_from_probabilities
from thalweg.evaluate.cost import Cost, cost
from thalweg.evaluate.density import (
    DensityReport,
    EnergyDistance,
    HistogramVariation,
    ModeCoverage,
    density,
    energy_distance,
    energy_distance_interval,
    histogram_variation,
    mode_coverage,
)
from thalweg.evaluate.extractor import Extractor, ExtractorConfig, FeatureExtractor, extractor, train_extractor
from thalweg.evaluate.fidelity import (
    Fidelity,
    FidelityReport,
    Figure,
    class_accuracy,
    fidelity,
    frechet_distance,
    frechet_from_features,
)
from thalweg.evaluate.latents import KNNProbe, LinearProbe, knn, linear_probe, tsne
from thalweg.evaluate.levels import LevelBounds, level_bounds
from thalweg.evaluate.likelihood import Bound, LogLikelihood, LogPartition, bits_per_dimension, log_likelihood, log_partition
from thalweg.evaluate.modes import ModeCount, StackedModes, count_modes, perfect_sampler, stacked_modes
from thalweg.evaluate.neighbours import Memorisation, Neighbours, memorisation, nearest_neighbours
from thalweg.evaluate.ood import OODReport, ood, outliers
from thalweg.evaluate.pretrained import EfficientNetLite0, Inception, extractor_by_name
from thalweg.evaluate.restoration import Average, Quality, Restoration, psnr, restoration, ssim
from thalweg.evaluate.robustness import MaskingChecks, RobustnessReport, robustness
from thalweg.evaluate.scores import SCORES, energies, ood_table, outlier_scores
from thalweg.evaluate.statistics import FeatureStatistics, reference_statistics

__all__ = [
    "SCORES",
    "Accuracy",
    "Average",
    "Bins",
    "Bound",
    "Calibration",
    "Cost",
    "DensityReport",
    "EfficientNetLite0",
    "EnergyDistance",
    "Extractor",
    "ExtractorConfig",
    "FeatureExtractor",
    "FeatureStatistics",
    "Fidelity",
    "FidelityReport",
    "Figure",
    "FlowEnergy",
    "Gaussian",
    "HistogramVariation",
    "Inception",
    "KNNProbe",
    "LevelBounds",
    "LinearProbe",
    "LogLikelihood",
    "LogPartition",
    "MaskingChecks",
    "Memorisation",
    "ModeCount",
    "ModeCoverage",
    "Neighbours",
    "OODReport",
    "Quality",
    "Restoration",
    "RobustnessReport",
    "StackedModes",
    "accuracy",
    "bits_per_dimension",
    "calibration",
    "calibration_from_probabilities",
    "class_accuracy",
    "cost",
    "count_modes",
    "density",
    "dequantise",
    "energies",
    "energy_distance",
    "energy_distance_interval",
    "extractor",
    "extractor_by_name",
    "fidelity",
    "fitted_base",
    "frechet_distance",
    "frechet_from_features",
    "grey_bins",
    "histogram_variation",
    "knn",
    "level_bounds",
    "linear_probe",
    "log_likelihood",
    "log_partition",
    "memorisation",
    "mode_coverage",
    "nearest_neighbours",
    "ood",
    "ood_table",
    "outlier_scores",
    "outliers",
    "perfect_sampler",
    "psnr",
    "reference_statistics",
    "restoration",
    "robustness",
    "ssim",
    "stacked_modes",
    "train_extractor",
    "tsne",
    "wilson",
]
