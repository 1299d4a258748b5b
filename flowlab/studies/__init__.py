"""The studies of the course: of points in the plane, and of MNIST. What a study is, says ``flowlab.study``."""

from flowlab.studies.digit_mixtures import MIXTURES
from flowlab.studies.digits import DENSITIES, Images, ImageStudy, ImageTrial, Splits, fit_and_evaluate, named, splits
from flowlab.studies.flow_mixtures import CIRCLES, PINWHEEL
from flowlab.studies.points import Points, PointStudy, PointTrial
from flowlab.studies.small_maps import SMALL_MAPS

MNIST = {study.name: study for study in (*DENSITIES, *MIXTURES)}  # what `flowlab train` trains

__all__ = [
    "CIRCLES",
    "MNIST",
    "PINWHEEL",
    "SMALL_MAPS",
    "ImageStudy",
    "ImageTrial",
    "Images",
    "PointStudy",
    "PointTrial",
    "Points",
    "Splits",
    "fit_and_evaluate",
    "named",
    "splits",
]
