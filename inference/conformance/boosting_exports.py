"""Gradient-boosted trees of XGBoost and LightGBM, exported by onnxmltools.

CASES has the maker of each case by the case's name.
"""

import functools

import lightgbm
import numpy as np
import onnxmltools
import sklearn.datasets
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from case_files import Case

SEED = 0
FEATURES = 30


@functools.cache
def table(classes):
    """2000 rows of 30 features; the classes, or (for 0) a number to predict."""
    if classes == 0:
        x, y = sklearn.datasets.make_regression(2000, FEATURES, n_informative=10, random_state=SEED)
        y = y / 100
    else:
        x, y = sklearn.datasets.make_classification(
            2000, FEATURES, n_informative=10, n_classes=classes, flip_y=0.05, random_state=SEED
        )
    return x.astype(np.float32), y


def with_missing(x):
    """The same rows with a tenth of the values missing."""
    x = x.copy()
    x[np.random.default_rng(SEED).random(x.shape) < 0.1] = np.nan
    return x


def finish(folder, exported, x):
    """Writes the exported model; its input sets are of one row, a few, and more."""
    (folder / "model.onnx").write_bytes(exported.SerializeToString(deterministic=True))
    [name] = [value.name for value in exported.graph.input]
    return Case([{name: x[:1]}, {name: x[1:6]}, {name: x[6:38]}])


def initial_types():
    return [("input", FloatTensorType([None, FEATURES]))]


def xgboost_to_onnx(model):
    # Without a name, the exporter makes a random one.
    return onnxmltools.convert_xgboost(model, name="xgboost", initial_types=initial_types())


def lightgbm_to_onnx(model, **options):
    return onnxmltools.convert_lightgbm(
        model, name="lightgbm", initial_types=initial_types(), **options
    )


def export_xgboost(folder, make, classes, missing=False):
    x, y = table(classes)
    if missing:
        x = with_missing(x)
    model = make(n_estimators=20, max_depth=4, random_state=SEED, n_jobs=1)
    model.fit(x, y)
    return finish(folder, xgboost_to_onnx(model), x)


def export_xgboost_ranker(folder):
    """Scores rows that are in groups of 20, by how relevant they are in their group (0 to 3)."""
    x, y = table(4)
    model = xgboost.XGBRanker(n_estimators=20, max_depth=4, random_state=SEED, n_jobs=1)
    model.fit(x, y, qid=np.arange(len(x)) // 20)
    return finish(folder, xgboost_to_onnx(model), x)


def export_lightgbm(folder, make, classes, missing=False, zipmap=False, **parameters):
    x, y = table(classes)
    if missing:
        x = with_missing(x)
    parameters = {"n_estimators": 20, "max_depth": 4} | parameters
    model = make(random_state=SEED, n_jobs=1, deterministic=True, verbose=-1, **parameters)
    model.fit(x, y)
    options = {"zipmap": zipmap} if isinstance(model, lightgbm.LGBMClassifier) else {}
    return finish(folder, lightgbm_to_onnx(model, **options), x)


def export_lightgbm_categories(folder):
    """Splits on sets of categories: comparisons for equality in the trees."""
    x, y = table(2)
    x = x.copy()
    # The first column becomes one of eight numbers, which are names of categories.
    x[:, 0] = np.digitize(x[:, 0], [-2, -1, -0.5, 0, 0.5, 1, 2])
    model = lightgbm.LGBMClassifier(
        n_estimators=20, max_depth=4, random_state=SEED, n_jobs=1, deterministic=True, verbose=-1
    )
    model.fit(x, y, categorical_feature=[0])
    return finish(folder, lightgbm_to_onnx(model, zipmap=False), x)


CASES = {
    "xgboost-binary": functools.partial(export_xgboost, make=xgboost.XGBClassifier, classes=2),
    "xgboost-multiclass": functools.partial(export_xgboost, make=xgboost.XGBClassifier, classes=4),
    "xgboost-regressor": functools.partial(export_xgboost, make=xgboost.XGBRegressor, classes=0),
    "xgboost-missing": functools.partial(
        export_xgboost, make=xgboost.XGBClassifier, classes=2, missing=True
    ),
    "xgboost-random-forest": functools.partial(
        export_xgboost, make=xgboost.XGBRFRegressor, classes=0
    ),
    "xgboost-ranker": export_xgboost_ranker,
    "lightgbm-binary": functools.partial(export_lightgbm, make=lightgbm.LGBMClassifier, classes=2),
    # What onnxmltools makes of probabilities by default: a map for each row.
    "lightgbm-binary-zipmap": functools.partial(
        export_lightgbm, make=lightgbm.LGBMClassifier, classes=2, zipmap=True
    ),
    "lightgbm-multiclass": functools.partial(
        export_lightgbm, make=lightgbm.LGBMClassifier, classes=4
    ),
    "lightgbm-regressor": functools.partial(
        export_lightgbm, make=lightgbm.LGBMRegressor, classes=0
    ),
    "lightgbm-poisson": functools.partial(
        export_lightgbm, make=lightgbm.LGBMRegressor, classes=2, objective="poisson"
    ),
    "lightgbm-missing": functools.partial(
        export_lightgbm, make=lightgbm.LGBMClassifier, classes=2, missing=True
    ),
    "lightgbm-categories": export_lightgbm_categories,
    # For the benchmark: 100 trees of depth 6, as full as they come.
    "lightgbm-forest": functools.partial(
        export_lightgbm,
        make=lightgbm.LGBMClassifier,
        classes=2,
        n_estimators=100,
        max_depth=6,
        num_leaves=64,
        min_child_samples=5,
    ),
}
