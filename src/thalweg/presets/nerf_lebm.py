"""Presets of `nerf_lebm`. docs/methods/nerf_lebm.md"""

from typing import Any

from thalweg.chain import Langevin
from thalweg.scene.fields import RadianceField, TriPlane
from thalweg.scene.specs import (
    MCMC,
    Amortized,
    EnergyPrior,
    GaussianPrior,
    InferenceNet,
    LatentAdam,
    LatentLangevin,
    Persistent,
    PoseSearch,
    Rays,
    SemiAmortized,
)

# Ours, for a CPU: what is not said is the Config's default
_OBJECTS = dict(data="objects", shape=(3, 32, 32), images=100_000)
_KEPT = dict(views=2, learner=Persistent(chains=800, posterior_chain=LatentAdam(steps=2, rate=0.02)))

# Ours, of procedural categories, for at most 14,400 CPU seconds of one thread in bf16
_CATEGORY = dict(
    shape=(3, 32, 32),
    views=2,
    images=640_000,
    lr=5e-4,
    field=TriPlane(),
    renderer=Rays(samples=16, importance=16, stop=1e-3),
    learner=SemiAmortized(chains=2400, alone=0.5, parts=4),
)
_FINER = dict(shape=(3, 64, 64), field=TriPlane(resolution=64), images=460_000)
# 48,000 training images, each seen 17 times
_UNPOSED = dict(
    views=1,
    images=800_000,
    learner=Amortized(),
    poses="unknown",
    pose_search=PoseSearch(candidates=16, side=8, kept=48_000, even=0.3, silhouettes=0.1, same_shape=0.3),
)
_VAE = dict(views=1, images=2_000_000, prior=GaussianPrior(), learner=Amortized(infer_chain=LatentAdam(steps=60, rate=0.05)))

# Thesis, Tables 3.1 to 3.3 and sec. 3.5.2; encodings, samples and bounds of GRAF (field of view 30°, radius 10 for CARLA); lengths ours
_FIELD = RadianceField(width=256, depth=8, mapping=256, octaves=10, octaves_view=4)
_PAPER = dict(field=_FIELD, dim_appearance=128, dim_shape=128, lr_generator=1e-4, warm_up=0, images=5_000_000)
_RESNET_34 = InferenceNet(widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3))
_CARLA = _PAPER | dict(data="data/carla/", shape=(3, 64, 64), renderer=Rays(near=7.5, far=12.5, ball=False, samples=64, rays=0))
# lens of 131.25 of 128 pixels, cameras at 1.3
_CARS = _PAPER | dict(
    data="data/srn_cars/", shape=(3, 128, 128), renderer=Rays(near=0.8, far=1.8, ball=False, focal=1.025, samples=64, rays=0)
)
_LARGE: dict[str, Any] = dict(width_appearance=256, width_shape=256, depth=4)  # Table 3.1 (b)

# fmt: off
PRESETS = {
    "objects":            dict(_OBJECTS),
    "objects-vae":        dict(_OBJECTS, prior=GaussianPrior()),
    "objects-mcmc":       dict(_OBJECTS, learner=MCMC()),
    "objects-persistent": dict(_OBJECTS, **_KEPT),
    "objects-incomplete": dict(_OBJECTS | _KEPT, data="objects-incomplete"),
    "objects-unposed":    dict(_OBJECTS, data="objects-aligned", poses="unknown", pose_search=PoseSearch(candidates=16, same_shape=0.4)),

    "chairs":             dict(_CATEGORY, data="chairs"),
    "chairs-vae":         dict(_CATEGORY | _VAE, data="chairs"),
    "chairs-64":          dict(_CATEGORY | _FINER, data="chairs"),
    "chairs-unposed":     dict(_CATEGORY | _UNPOSED, data="chairs"),
    "cars":               dict(_CATEGORY, data="cars"),
    "cars-vae":           dict(_CATEGORY | _VAE, data="cars"),
    "cars-64":            dict(_CATEGORY | _FINER, data="cars"),
    "cars-unposed":       dict(_CATEGORY | _UNPOSED, data="cars"),
    "cars-incomplete":    dict(_CATEGORY, data="cars-incomplete"),

    # "Carla / MCMC inference / with poses"
    "carla-mcmc":         dict(_CARLA, batch=8, lr=2e-5,
                               prior=EnergyPrior(**_LARGE, reference="uniform", chain=Langevin(steps=60, step=0.5, noise=0.02)),
                               learner=MCMC(posterior_chain=LatentLangevin(steps=60, step=0.1),
                                            infer_chain=LatentLangevin(steps=60, step=0.1))),
    # "Carla / amortized inference / with poses"
    "carla-amortized":    dict(_CARLA, batch=8, lr=7e-6,
                               prior=EnergyPrior(width_appearance=128, width_shape=256, chain=Langevin(steps=60, step=0.5)),
                               learner=Amortized(inference=_RESNET_34, lr_inference=1e-4)),
    # "Carla / amortized inference / without poses"; heads by sec. 3.5.2.3
    "carla-unposed":      dict(_CARLA, batch=16, lr=7e-6, lr_generator=3e-5, poses="unknown",
                               prior=EnergyPrior(width_appearance=64, width_shape=128, chain=Langevin(steps=60, step=0.5, noise=0.0)),
                               learner=Amortized(inference=_RESNET_34, lr_inference=3e-5, lr_heads=5e-6)),
    # "ShapeNet Car / persistent MCMC inference / with poses", 12 objects of 2 views; 600 steps of `infer` by sec. 3.5.6, their size ours
    "shapenet-cars":      dict(_CARS, batch=24, views=2, lr=2e-5,
                               prior=EnergyPrior(**_LARGE, chain=Langevin(steps=40, step=0.5, noise=0.0)),
                               learner=Persistent(chains=2500, posterior_chain=LatentAdam(steps=1, rate=1e-4),
                                                  infer_chain=LatentAdam(steps=600, rate=0.02))),
    # sec. 3.5.7: masked cars, 50 views of each object to train on; the share of what is hidden is ours
    "shapenet-cars-incomplete": dict(_CARS, batch=24, views=2, read_views=50, missing=0.25, lr=2e-5,
                               prior=EnergyPrior(**_LARGE, chain=Langevin(steps=40, step=0.5, noise=0.0)),
                               learner=Persistent(chains=2500, posterior_chain=LatentAdam(steps=1, rate=1e-4),
                                                  infer_chain=LatentAdam(steps=600, rate=0.02))),
}
# fmt: on
