"""Makes small real models, exports them to ONNX, and writes them with onnxruntime's answers.

    real_exports.py OUT [--only SUBSTRING] [--bench] [--without-torch]

makes the folder OUT/<case> for every case, with the files that case_files.py tells of. The cases
are in torch_exports.py, sklearn_exports.py and boosting_exports.py.

A case that cannot be exported, or that onnxruntime itself cannot run, is left out, and the summary
at the end tells why. The script fails only if one that is in REQUIRED is left out.
"""

import argparse
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import time
import warnings

# Before the imports, some of which warn.
warnings.simplefilter("ignore")

# PyTorch is gigabytes: the other cases are to be had without it.
WITH_TORCH = "--without-torch" not in sys.argv
if WITH_TORCH:
    import torch  # noqa: E402

    import torch_exports  # noqa: E402

import boosting_exports  # noqa: E402
import sklearn_exports  # noqa: E402
from case_files import start_case, write_answers, write_tolerance  # noqa: E402

TORCH_CASES = torch_exports.CASES if WITH_TORCH else {}
CASES = TORCH_CASES | sklearn_exports.CASES | boosting_exports.CASES

# What the benchmarks run.
BENCH = [
    "torch-mlp",
    "torch-digits-cnn",
    "torch-resnet18",
    "torch-encoder",
    "torch-mlp-int8-dynamic",
    "torch-mlp-int8-qlinear",
    "torch-mlp-int8-qoperator",
    "torch-digits-cnn-int8-dynamic",
    "torch-digits-cnn-int8-qlinear",
    "torch-digits-cnn-int8-qoperator",
    "lightgbm-forest",
]

# Without these, the set of cases would not be worth its name.
REQUIRED = [
    *TORCH_CASES,
    "sklearn-AdaBoostClassifier",
    "sklearn-ColumnTransformer",
    "sklearn-CountVectorizer",
    "sklearn-DecisionTreeClassifier",
    "sklearn-DecisionTreeRegressor",
    "sklearn-ElasticNet",
    "sklearn-ExtraTreesClassifier",
    "sklearn-GaussianMixture",
    "sklearn-GaussianNB",
    "sklearn-GaussianProcessRegressor",
    "sklearn-GradientBoostingClassifier",
    "sklearn-GradientBoostingRegressor",
    "sklearn-HistGradientBoostingClassifier",
    "sklearn-HistGradientBoostingRegressor",
    "sklearn-IsolationForest",
    "sklearn-KBinsDiscretizer",
    "sklearn-KMeans",
    "sklearn-KNeighborsClassifier",
    "sklearn-KNeighborsRegressor",
    "sklearn-Lasso",
    "sklearn-LinearDiscriminantAnalysis",
    "sklearn-LinearRegression",
    "sklearn-LinearSVC",
    "sklearn-LogisticRegression",
    "sklearn-LogisticRegression-binary",
    "sklearn-LogisticRegression-zipmap",
    "sklearn-MLPClassifier",
    "sklearn-MLPRegressor",
    "sklearn-MinMaxScaler",
    "sklearn-MultinomialNB",
    "sklearn-Normalizer",
    "sklearn-OneClassSVM",
    "sklearn-OneHotEncoder",
    "sklearn-OneVsRestClassifier",
    "sklearn-OrdinalEncoder",
    "sklearn-PCA",
    "sklearn-Pipeline",
    "sklearn-PolynomialFeatures",
    "sklearn-RandomForestClassifier",
    "sklearn-RandomForestClassifier-binary",
    "sklearn-RandomForestRegressor",
    "sklearn-Ridge",
    "sklearn-SGDClassifier",
    "sklearn-SVC",
    "sklearn-SVR",
    "sklearn-SimpleImputer",
    "sklearn-StackingClassifier",
    "sklearn-StandardScaler",
    "sklearn-TfidfVectorizer",
    "sklearn-VotingClassifier",
    "xgboost-binary",
    "xgboost-multiclass",
    "xgboost-regressor",
    "lightgbm-binary",
    "lightgbm-multiclass",
    "lightgbm-regressor",
    "lightgbm-forest",
]


def provide_locale(folder):
    """Lets onnxruntime find the locale that the models of texts are for, en_US.UTF-8.

    Its StringNormalizer fails without. A bare Debian has only C.UTF-8, whose letters are the same.
    """
    plain = pathlib.Path("/usr/lib/locale/C.utf8")
    if plain.exists():
        (folder / "en_US.UTF-8").symlink_to(plain)
        os.environ["LOCPATH"] = str(folder)


def write_case(folder, make):
    """Makes the case in `folder`, or nothing. Returns why it could not be made, or None."""
    start_case(folder)
    try:
        case = make(folder)
        write_tolerance(folder, case.rtol, case.atol)
        write_answers(folder, case.feeds)
    except Exception as error:  # whatever an exporter throws: the other cases are to be made
        shutil.rmtree(folder)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def selected(only, bench):
    """The names of the cases that the command line asks for."""
    names = [name for name in BENCH if name in CASES] if bench else list(CASES)
    return [name for name in names if only in name]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases whose name has it")
    parser.add_argument("--bench", action="store_true", help="only what the benchmarks run")
    parser.add_argument("--without-torch", action="store_true", help="no cases of PyTorch")
    arguments = parser.parse_args()

    # The exporters tell at length of what is no concern here.
    logging.disable(logging.ERROR)
    # The order of sums, and so the weights, would otherwise depend on the number of cores.
    if WITH_TORCH:
        torch.set_num_threads(1)

    names = selected(arguments.only, arguments.bench)
    left_out = {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as locales:
        provide_locale(pathlib.Path(locales))
        for i, name in enumerate(names):
            reason = write_case(arguments.out / name, CASES[name])
            print(f"[{i + 1}/{len(names)}] {name}{' LEFT OUT' if reason else ''}", flush=True)
            if reason:
                left_out[name] = reason

    print()
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    seconds = time.monotonic() - start
    written = len(names) - len(left_out)
    print(f"{written} cases in {arguments.out}, {len(left_out)} left out, in {seconds:.0f} s")
    missing = [name for name in REQUIRED if name in left_out]
    if missing:
        sys.exit(f"required, but left out: {', '.join(missing)}")


if __name__ == "__main__":
    main()
