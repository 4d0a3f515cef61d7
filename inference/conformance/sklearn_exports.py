"""Scikit-learn models of every class that skl2onnx can export.

CASES has a case `sklearn-<Class>` for each class in skl2onnx's own table, so that none is
forgotten: with what MADE_WITH and FITTED_ON say, or else with the class's defaults on data that
fits its kind.
Most classifiers have three classes there, and a second case `sklearn-<Class>-binary` with two.
VARIANTS are further cases, which show an option of the export or of the model.

The options of the export are skl2onnx's defaults, but that a classifier's probabilities are a
tensor. What the default makes of them, a sequence of maps, is in the cases with `zipmap` in their
names.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable

import numpy as np
import sklearn.base
import sklearn.datasets
from skl2onnx import to_onnx
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common.data_types import (
    DictionaryType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from skl2onnx.sklapi import CastRegressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, KernelPCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import RFE, RFECV, GenericUnivariateSelect, SelectFromModel
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    NearestNeighbors,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from case_files import Case

SEED = 0

# The classes that skl2onnx can export, by name.
CLASSES = {cls.__name__: cls for cls in sklearn_operator_name_map}

# ---- Data -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Data:
    """What to fit a model on, and how the exported model takes it."""

    x: object
    y: object
    # The inputs of the model: (name, type), and the columns of x that each takes (None: all).
    types: list[tuple[str, object]]
    columns: list[object] = dataclasses.field(default_factory=lambda: [None])


# The number types that a model may have as input, by numpy's name.
TENSOR_TYPES = {
    "float32": FloatTensorType,
    "float64": DoubleTensorType,
    "int64": Int64TensorType,
    "object": StringTensorType,
}


def matrix(x, y=None):
    """Rows of one kind of value, as one input."""
    return Data(x, y, [("X", TENSOR_TYPES[x.dtype.name]([None, x.shape[1]]))])


@functools.cache
def iris():
    """Four measures of flowers of three kinds.

    They are multiples of 0.1, of which many are equally far from each other. The small noise lets
    no neighbour, no threshold and no cluster be decided by how a sum is rounded.
    """
    x, y = sklearn.datasets.load_iris(return_X_y=True)
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(x))
    x = np.abs(x + rng.normal(scale=0.02, size=x.shape))
    return x[order].astype(np.float32), y[order]


def multiclass():
    return matrix(*iris())


def binary():
    x, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)[:, :8]
    return matrix(x.astype(np.float32), y)


def wide_binary():
    """30 features, for those that select some."""
    x, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    return matrix(StandardScaler().fit_transform(x).astype(np.float32), y)


def string_labels():
    x, y = iris()
    return matrix(x, np.array(["setosa", "versicolor", "virginica"])[y])


def multilabel():
    x, y = iris()
    return matrix(x, np.stack([y, (x[:, 0] > 5.8).astype(np.int64)], axis=1))


def indicator():
    """Labels that do not exclude each other, as columns of 0 and 1."""
    x, y = iris()
    return matrix(x, np.stack([y == 0, x[:, 0] > 5.8, x[:, 3] > 1], axis=1).astype(np.int64))


def constant_label():
    """Labels of which there is but one."""
    x, y = iris()
    return matrix(x, np.zeros_like(y))


@functools.cache
def diabetes():
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    return x.astype(np.float32), y


def regression():
    x, y = diabetes()
    return matrix(x * 10, y / 100)


def double_regression():
    x, y = diabetes()
    return matrix(x.astype(np.float64) * 10, y / 100)


def multi_regression():
    x, y = diabetes()
    return matrix(x * 10, np.stack([y / 100, x[:, 2] * 10], axis=1))


def small_double_binary():
    x, y = iris()
    return matrix(x[:60].astype(np.float64), y[:60] % 2)


def small_double_regression():
    x, y = diabetes()
    return matrix(x[:80].astype(np.float64) * 10, y[:80] / 100)


def counts():
    """Small counts, some of which are zero."""
    x, y = iris()
    return matrix(np.floor(x).astype(np.float32), y)


def categories():
    x, y = iris()
    return matrix(np.minimum(np.floor(x), 3).astype(np.int64), y)


def kernel_matrix():
    x, y = iris()
    return matrix((x @ x[:20].T)[:20], y[:20])


def missing():
    x, y = iris()
    x = x.copy()
    x[np.random.default_rng(SEED).random(x.shape) < 0.2] = np.nan
    return matrix(x, y)


def strings():
    """Two columns of words."""
    rng = np.random.default_rng(SEED)
    colours = rng.choice(["red", "green", "blue", "Grün"], 120)
    sizes = rng.choice(["small", "large"], 120)
    y = (colours == "red") * 2.0 + (sizes == "large") + rng.normal(scale=0.1, size=120)
    return matrix(np.stack([colours, sizes], axis=1).astype(object), y)


def missing_strings():
    x = strings().x
    x[::5, 0] = ""
    return matrix(x)


def integers():
    x, y = iris()
    return matrix(np.floor(x).astype(np.int64) * 10, y)


def one_column_of_strings():
    """What LabelEncoder takes: no matrix, but a list."""
    values = strings().x[:, 0]
    return Data(values, None, [("X", StringTensorType([None]))])


def one_column_of_integers():
    _, y = iris()
    return Data(y, None, [("X", Int64TensorType([None]))])


TEXTS = [
    "the validators agree on a block",
    "a block has many transactions in it",
    "a model answers, and the answer is the same everywhere!",
    "the same model; the same answer",
    "Validators that lie are punished",
    "transactions pay for the gas they use",
    "what is not agreed on is not in the block",
    "every node runs the model by itself",
]


def texts():
    """Sentences: for the vectorizer a list, for the exported model a matrix of one column."""
    x = np.array(TEXTS * 4, dtype=object)
    return Data(x, np.arange(len(x)) % 2, [("X", StringTensorType([None, 1]))])


def dictionaries():
    """What DictVectorizer takes: for each row, numbers by name."""
    x = [{"a": 1.0, "b": 2.0}, {"b": 0.5, "c": -1.0}, {"a": 3.0, "c": 4.0}, {"b": 7.0}]
    return Data(x, None, [("X", DictionaryType(StringTensorType([1]), FloatTensorType([1])))])


def tokens():
    """What FeatureHasher takes here: a matrix of strings."""
    return matrix(np.array([text.split()[:4] for text in TEXTS], dtype=object))


def mixed():
    """Two columns of numbers and two of words, with names, each kind as an input of its own."""
    x, y = iris()
    words = strings().x
    rows = np.empty((len(words), 4), dtype=object)
    rows[:, :2], rows[:, 2:] = x[: len(words), :2], words
    types = [("numbers", FloatTensorType([None, 2])), ("words", StringTensorType([None, 2]))]
    return Data(rows, y[: len(words)], types, [[0, 1], [2, 3]])


# ---- Models -----------------------------------------------------------------------------------


def logistic():
    return LogisticRegression(max_iter=1000)


def forest():
    return RandomForestClassifier(20, random_state=SEED)


def classifiers():
    return [
        ("logistic", logistic()),
        ("tree", DecisionTreeClassifier(max_depth=3, random_state=SEED)),
    ]


def regressors():
    return [
        ("linear", LinearRegression()),
        ("tree", DecisionTreeRegressor(max_depth=3, random_state=SEED)),
    ]


def column_transformer():
    return ColumnTransformer(
        [("numbers", StandardScaler(), [0, 1]), ("words", OneHotEncoder(), [2, 3])]
    )


# How the classes are made that need more than their defaults.
MADE_WITH = {
    "CalibratedClassifierCV": lambda: CalibratedClassifierCV(LinearSVC()),
    "CastRegressor": lambda: CastRegressor(DecisionTreeRegressor(random_state=SEED)),
    "ColumnTransformer": column_transformer,
    "DictVectorizer": lambda: DictVectorizer(sparse=False),
    "FeatureHasher": lambda: FeatureHasher(16, input_type="string"),
    "FeatureUnion": lambda: FeatureUnion([("scaler", StandardScaler()), ("pca", PCA(2))]),
    "GaussianProcessRegressor": lambda: GaussianProcessRegressor(RBF() + WhiteKernel()),
    # The default number is made for far more features.
    "GaussianRandomProjection": lambda: GaussianRandomProjection(2, random_state=SEED),
    # The default keeps a hundred-thousandth of the features: none.
    "GenericUnivariateSelect": lambda: GenericUnivariateSelect(mode="k_best", param=5),
    "GridSearchCV": lambda: GridSearchCV(logistic(), {"C": [0.1, 1.0]}),
    # The default, like that of RandomTreesEmbedding, is a sparse matrix: not exported.
    "KBinsDiscretizer": lambda: KBinsDiscretizer(encode="onehot-dense"),
    "KernelPCA": lambda: KernelPCA(3, kernel="rbf"),
    # The default cannot tell of rows that it was not fitted on.
    "LocalOutlierFactor": lambda: LocalOutlierFactor(novelty=True),
    "LogisticRegression": logistic,
    "MultiOutputClassifier": lambda: MultiOutputClassifier(logistic()),
    "MultiOutputRegressor": lambda: MultiOutputRegressor(Ridge()),
    # The default has a radius as well: not exported.
    "NearestNeighbors": lambda: NearestNeighbors(radius=None),
    "OneVsOneClassifier": lambda: OneVsOneClassifier(logistic()),
    "OneVsRestClassifier": lambda: OneVsRestClassifier(logistic()),
    "Pipeline": lambda: make_pipeline(StandardScaler(), PCA(3), logistic()),
    # The default fails on features as alike as some of `binary`.
    "QuadraticDiscriminantAnalysis": lambda: QuadraticDiscriminantAnalysis(reg_param=0.01),
    "QuantileTransformer": lambda: QuantileTransformer(n_quantiles=50),
    "RFE": lambda: RFE(logistic(), n_features_to_select=5),
    "RFECV": lambda: RFECV(logistic()),
    # With a radius that leaves a row out, onnxruntime cannot run the exported model.
    "RadiusNeighborsClassifier": lambda: RadiusNeighborsClassifier(100, weights="distance"),
    "RadiusNeighborsRegressor": lambda: RadiusNeighborsRegressor(100, weights="distance"),
    "RandomTreesEmbedding": lambda: RandomTreesEmbedding(sparse_output=False, random_state=SEED),
    "SelectFromModel": lambda: SelectFromModel(forest()),
    "StackingClassifier": lambda: StackingClassifier(classifiers()),
    "StackingRegressor": lambda: StackingRegressor(regressors()),
    "TunedThresholdClassifierCV": lambda: TunedThresholdClassifierCV(logistic()),
    # The default shape of what `transform` gives is not exported.
    "VotingClassifier": lambda: VotingClassifier(classifiers(), flatten_transform=False),
    "VotingRegressor": lambda: VotingRegressor(regressors()),
}

# The data of the classes that need a special kind.
FITTED_ON = {
    "BernoulliNB": counts,
    "CategoricalNB": categories,
    "ColumnTransformer": mixed,
    "ComplementNB": counts,
    "CountVectorizer": texts,
    "DictVectorizer": dictionaries,
    "FeatureHasher": tokens,
    # In single precision, the inverse of the kernel's matrix would be too coarse.
    "GaussianProcessClassifier": small_double_binary,
    "GaussianProcessRegressor": small_double_regression,
    "GenericUnivariateSelect": wide_binary,
    "KNNImputer": missing,
    "KernelCenterer": kernel_matrix,
    "LabelBinarizer": one_column_of_integers,
    "LabelEncoder": one_column_of_strings,
    "MultiOutputClassifier": multilabel,
    "MultiOutputRegressor": multi_regression,
    "MultiTaskElasticNet": multi_regression,
    "MultiTaskElasticNetCV": multi_regression,
    "MultiTaskLasso": multi_regression,
    "MultiTaskLassoCV": multi_regression,
    "MultinomialNB": counts,
    "OneHotEncoder": strings,
    "OrdinalEncoder": strings,
    "RFE": wide_binary,
    "ReplaceTransformer": counts,
    "SelectFdr": wide_binary,
    "SelectFpr": wide_binary,
    "SelectFromModel": wide_binary,
    "SelectFwe": wide_binary,
    "SelectKBest": wide_binary,
    "SelectPercentile": wide_binary,
    "SimpleImputer": missing,
    "TargetEncoder": strings,
    "TfidfTransformer": counts,
    "TfidfVectorizer": texts,
    "TunedThresholdClassifierCV": binary,
    "_ConstantPredictor": constant_label,
}


NO_ZIPMAP = {"zipmap": False}
ZIPMAP = {"zipmap": True}

# The options of the export, for classes that do not tell that they have `zipmap`, or tell wrongly.
OPTIONS = {
    "GridSearchCV": NO_ZIPMAP,
    "LinearSVC": {},
    "Pipeline": NO_ZIPMAP,
    "RFE": {},
    "RFECV": {},
    "_ConstantPredictor": NO_ZIPMAP,
}

# Exports for other than the newest versions of the operators, which the exporter cannot do.
TARGET_OPSETS = {"IsolationForest": {"": 18, "ai.onnx.ml": 3}}


@dataclasses.dataclass
class Recipe:
    """How to make a case: what makes the model, and what makes the data to fit it on."""

    make: Callable[[], sklearn.base.BaseEstimator]
    data: Callable[[], Data]
    # Options of the export, and the versions of the operators by domain.
    options: dict = dataclasses.field(default_factory=dict)
    target_opset: dict | None = None


# Further cases, by their names less `sklearn-`.
VARIANTS = {
    # What the exporter makes of probabilities by default: a map for each row.
    "LogisticRegression-zipmap": Recipe(logistic, multiclass, ZIPMAP),
    "LogisticRegression-zipmap-strings": Recipe(logistic, string_labels, ZIPMAP),
    "RandomForestClassifier-zipmap": Recipe(forest, binary, ZIPMAP),
    "LogisticRegression-zipmap-columns": Recipe(logistic, multiclass, {"zipmap": "columns"}),
    "LogisticRegression-raw-scores": Recipe(logistic, multiclass, NO_ZIPMAP | {"raw_scores": True}),
    "LogisticRegression-strings": Recipe(logistic, string_labels, NO_ZIPMAP),
    "RandomForestClassifier-strings": Recipe(forest, string_labels, NO_ZIPMAP),
    "GradientBoostingClassifier-strings": Recipe(
        lambda: GradientBoostingClassifier(n_estimators=20, random_state=SEED),
        string_labels,
        NO_ZIPMAP,
    ),
    "SVC-strings": Recipe(lambda: SVC(random_state=SEED), string_labels, NO_ZIPMAP),
    "SVC-probability": Recipe(
        lambda: SVC(probability=True, random_state=SEED), multiclass, NO_ZIPMAP
    ),
    "SVC-linear": Recipe(lambda: SVC(kernel="linear"), multiclass, NO_ZIPMAP),
    "SVC-poly": Recipe(lambda: SVC(kernel="poly"), binary, NO_ZIPMAP),
    "SVC-sigmoid": Recipe(lambda: SVC(kernel="sigmoid"), binary, NO_ZIPMAP),
    "SVR-poly": Recipe(lambda: SVR(kernel="poly"), regression),
    "CalibratedClassifierCV-isotonic": Recipe(
        lambda: CalibratedClassifierCV(LinearSVC(), method="isotonic"), multiclass, NO_ZIPMAP
    ),
    "VotingClassifier-soft": Recipe(
        lambda: VotingClassifier(classifiers(), voting="soft", flatten_transform=False),
        multiclass,
        NO_ZIPMAP,
    ),
    "RandomForestClassifier-multilabel": Recipe(forest, multilabel, NO_ZIPMAP),
    "OneVsRestClassifier-multilabel": Recipe(
        lambda: OneVsRestClassifier(logistic()), indicator, NO_ZIPMAP
    ),
    "RandomForestRegressor-multi": Recipe(
        lambda: RandomForestRegressor(20, random_state=SEED), multi_regression
    ),
    "HistGradientBoostingClassifier-missing": Recipe(
        lambda: HistGradientBoostingClassifier(random_state=SEED), missing, NO_ZIPMAP
    ),
    "LinearRegression-double": Recipe(LinearRegression, double_regression),
    "KNeighborsClassifier-weighted": Recipe(
        lambda: KNeighborsClassifier(weights="distance"), multiclass, NO_ZIPMAP
    ),
    "KNeighborsRegressor-manhattan": Recipe(
        lambda: KNeighborsRegressor(metric="manhattan"), regression
    ),
    # With an operator of onnxruntime's own for the distances.
    "KNeighborsClassifier-cdist": Recipe(
        KNeighborsClassifier, multiclass, NO_ZIPMAP | {"optim": "cdist"}
    ),
    "GaussianProcessRegressor-std": Recipe(
        MADE_WITH["GaussianProcessRegressor"], small_double_regression, {"return_std": True}
    ),
    "OneHotEncoder-integers": Recipe(OneHotEncoder, integers),
    "OrdinalEncoder-integers": Recipe(OrdinalEncoder, integers),
    "LabelEncoder-integers": Recipe(CLASSES["LabelEncoder"], one_column_of_integers),
    "KBinsDiscretizer-ordinal": Recipe(lambda: KBinsDiscretizer(encode="ordinal"), multiclass),
    "PowerTransformer-box-cox": Recipe(lambda: PowerTransformer("box-cox"), multiclass),
    "PolynomialFeatures-interaction": Recipe(
        lambda: PolynomialFeatures(3, interaction_only=True), multiclass
    ),
    "SimpleImputer-strings": Recipe(
        lambda: SimpleImputer(missing_values="", strategy="most_frequent"), missing_strings
    ),
    "CountVectorizer-ngrams": Recipe(lambda: CountVectorizer(ngram_range=(1, 2)), texts),
    "CountVectorizer-characters": Recipe(
        lambda: CountVectorizer(analyzer="char", ngram_range=(2, 3)), texts
    ),
    "TfidfVectorizer-stop-words": Recipe(lambda: TfidfVectorizer(stop_words="english"), texts),
    "HashingVectorizer": Recipe(lambda: HashingVectorizer(n_features=16), texts),
    "Pipeline-text": Recipe(lambda: make_pipeline(TfidfVectorizer(), logistic()), texts, NO_ZIPMAP),
    "Pipeline-columns": Recipe(
        lambda: make_pipeline(column_transformer(), logistic()), mixed, NO_ZIPMAP
    ),
    "Pipeline-imputer-forest": Recipe(
        lambda: make_pipeline(SimpleImputer(), forest()), missing, NO_ZIPMAP
    ),
}

# What a case may be off by, where it is more than case_files.Case allows by default.
TOLERANCES = {
    # The differences of numbers near 60, whose rounding alone is about 1e-5.
    "KernelCenterer": {"atol": 1e-4},
}


# ---- Export -----------------------------------------------------------------------------------


def recipe_of(cls):
    """The recipe of a class: what the tables say, and else its defaults."""
    name = cls.__name__
    parameters = inspect.signature(cls).parameters
    seed = {"random_state": SEED} if "random_state" in parameters else {}
    make = MADE_WITH.get(name, functools.partial(cls, **seed))
    is_classifier = issubclass(cls, sklearn.base.ClassifierMixin)
    is_regressor = issubclass(cls, sklearn.base.RegressorMixin)
    return Recipe(
        make,
        FITTED_ON.get(name, regression if is_regressor else multiclass),
        OPTIONS.get(name, NO_ZIPMAP if is_classifier else {}),
        TARGET_OPSETS.get(name),
    )


def feeds_of(data):
    """Input sets of one row, a few, and more; a dictionary is always one row."""
    if isinstance(data.x, list):
        return [{"X": row} for row in data.x]
    feeds = []
    for rows in [data.x[:1], data.x[1:6], data.x[6:30]]:
        feed = {}
        for (name, type_), columns in zip(data.types, data.columns, strict=True):
            dtype = next(key for key, value in TENSOR_TYPES.items() if type(type_) is value)
            values = rows if columns is None else rows[:, columns]
            # Texts are a list for scikit-learn, and a column for the exported model.
            feed[name] = values.reshape([-1, *type_.shape[1:]]).astype(dtype)
        feeds.append(feed)
    return feeds


def export(folder, name, recipe):
    """Fits and exports the model of a recipe."""
    np.random.seed(SEED)
    data, model = recipe.data(), recipe.make()
    model.fit(data.x) if data.y is None else model.fit(data.x, data.y)
    exported = to_onnx(
        model,
        initial_types=data.types,
        options={id(model): recipe.options},
        target_opset=recipe.target_opset,
    )
    (folder / "model.onnx").write_bytes(exported.SerializeToString(deterministic=True))
    return Case(feeds_of(data), **TOLERANCES.get(name, {}))


def make_cases():
    """Returns the maker of each case by the case's name."""
    recipes = {}
    for name, cls in sorted(CLASSES.items()):
        recipes[name] = recipe = recipe_of(cls)
        if issubclass(cls, sklearn.base.ClassifierMixin) and recipe.data is multiclass:
            recipes[f"{name}-binary"] = dataclasses.replace(recipe, data=binary)
    recipes |= VARIANTS
    return {
        f"sklearn-{name}": functools.partial(export, name=name, recipe=recipe)
        for name, recipe in recipes.items()
    }


CASES = make_cases()
