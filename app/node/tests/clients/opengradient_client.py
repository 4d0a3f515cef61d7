"""Uses a Penstock chain through OpenGradient's own SDK: of its `Alpha` client only addresses and the URL are other ones.

    pip install -r app/node/tests/clients/requirements.txt
    pip install --no-deps -r app/node/tests/clients/requirements-no-deps.txt
    python app/node/tests/clients/opengradient_client.py

Or, with all that the SDK brings for other purposes: `pip install opengradient`. The environment says where the chain is, as
in common.mjs. One line a check; ends at the first that fails.
"""

import importlib.util
import json
import os
import pathlib
import sys
import time
import traceback
import types

from eth_account import Account
from web3 import Web3

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]
RPC = os.environ.get("PENSTOCK_RPC") or "http://127.0.0.1:8545"
CONTRACTS = pathlib.Path(os.environ.get("PENSTOCK_CONTRACTS") or REPOSITORY / "app/contracts/out")

# What an OpenGradient program changes.
INFERENCE_HUB = Web3.to_checksum_address("0x00000000000000000000000000000000000000F7")
SCHEDULER = Web3.to_checksum_address("0x00000000000000000000000000000000000000F9")

CANDLE_FEED = Web3.to_checksum_address("0x00000000000000000000000000000000000000F8")
# Accounts of the mnemonic `test test ... junk`: the first, and the last, which feeds prices.
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
FEEDER_KEY = "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6"
COIN = 10**18

sdk = importlib.util.find_spec("opengradient")
if sdk is None:
    print("skipped: opengradient is not installed (scripts/test installs it)")
    sys.exit()

try:
    import opengradient
except ImportError:
    # Installed without what it needs for language models. The packages without their `__init__.py`, which imports all of
    # that; the modules are the SDK's, unchanged.
    for name in [name for name in sys.modules if name.split(".")[0] == "opengradient"]:
        del sys.modules[name]
    for name in ("opengradient", "opengradient.client"):
        package = types.ModuleType(name)
        package.__path__ = [str(pathlib.Path(sdk.submodule_search_locations[0], *name.split(".")[1:]))]
        sys.modules[name] = package

from opengradient.client import alpha as alpha_module
from opengradient.types import CandleOrder, CandleType, HistoricalInputQuery, InferenceMode, SchedulerParams

alpha_module.DEFAULT_SCHEDULER_ADDRESS = SCHEDULER
alpha = alpha_module.Alpha(private_key=KEY, rpc_url=RPC, inference_contract_address=INFERENCE_HUB)
w3 = Web3(Web3.HTTPProvider(RPC, request_kwargs={"timeout": 60}))


def contract(address, name):
    return w3.eth.contract(address=address, abi=json.loads((CONTRACTS / f"{name}.json").read_text())["abi"])


feed, scheduler = contract(CANDLE_FEED, "CandleFeed"), contract(SCHEDULER, "WorkflowScheduler")


def check(what_holds):
    """Runs the function below at once and prints a line for it; the first that fails ends the program."""

    def run(body):
        try:
            value = body()
        except Exception:
            print(f"not ok - {what_holds}", flush=True)
            print(f"not ok - {what_holds}\n{traceback.format_exc()}", file=sys.stderr)
            sys.exit(1)
        print(f"ok - {what_holds}", flush=True)
        return value

    return run


def send(key, call, **fields):
    """Signs and sends a contract's call; the receipt, which must be of a success."""
    account = Account.from_key(key)
    base = {"from": account.address, "nonce": w3.eth.get_transaction_count(account.address, "pending"), "gasPrice": w3.eth.gas_price}
    signed = account.sign_transaction(call.build_transaction({**base, **fields}))
    receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_raw_transaction(signed.raw_transaction), timeout=60)
    assert receipt["status"] == 1, receipt
    return receipt


def raises(body):
    try:
        body()
    except Exception as error:
        return str(error)
    raise AssertionError("no error")


@check("Alpha.infer answers the model's numbers")
def _():
    result = alpha.infer("penstock/linear", InferenceMode.VANILLA, {"x": [[1.0, 2.5]]})
    assert result.model_output["y"].tolist() == [[9.0]], result
    receipt = w3.eth.get_transaction_receipt(result.transaction_hash)
    assert receipt["to"] == INFERENCE_HUB and receipt["status"] == 1, receipt
    several = alpha.infer("penstock/linear", InferenceMode.VANILLA, {"x": [[0, 0], [1, 1], [-2, 3]]})
    assert several.model_output["y"].tolist() == [[3.0], [6.0], [7.0]], several


@check("Alpha.infer fails where the precompile denies")
def _():
    raises(lambda: alpha.infer("nobody/nothing", InferenceMode.VANILLA, {"x": [[1.0, 2.0]]}))
    raises(lambda: alpha.infer("penstock/linear", InferenceMode.ZKML, {"x": [[1.0, 2.0]]}))


@check("the feeder pushes candles, and nobody else")
def _():
    send(FEEDER_KEY, feed.functions.addPair("ETH", "USD", 2, 3))
    # Half an hour, the last minute the one before this one.
    last = int(time.time()) // 60 - 1
    candles = [
        ((last - 32 + i) * 60, 300_000 + i * 100, 300_500 + i * 100, 299_500 + i * 100, 300_050 + i * 100, 1_000 + i) for i in range(33)
    ]
    raises(lambda: feed.functions.pushCandles("ETH", "USD", candles).call({"from": Account.from_key(KEY).address}))
    send(FEEDER_KEY, feed.functions.pushCandles("ETH", "USD", candles))
    assert feed.functions.latest("ETH", "USD").call() == last * 60


query = HistoricalInputQuery(
    base="ETH",
    quote="USD",
    total_candles=10,
    candle_duration_in_mins=3,
    order=CandleOrder.ASCENDING,
    candle_types=[CandleType.OPEN, CandleType.HIGH, CandleType.LOW, CandleType.CLOSE],
)


@check("Alpha.new_workflow deploys the SDK's own contract, and Alpha.run_workflow runs it with 30,000,000 gas")
def workflow():
    address = alpha.new_workflow("penstock/volatility", query, "candles")
    assert len(w3.eth.get_code(address)) > 1_000
    output = alpha.run_workflow(address)
    assert not output.is_simulation_result and output.numbers["volatility"].shape == (1, 1), output
    return address


@check("Alpha.read_workflow_result and read_workflow_history read what was kept")
def _():
    first = alpha.read_workflow_result(workflow)
    alpha.run_workflow(workflow)
    history = alpha.read_workflow_history(workflow, 5)
    assert len(history) == 2, history
    assert all(output.numbers["volatility"] == first.numbers["volatility"] for output in history), history


@check("a query for prices that are not there fails")
def _():
    longer = HistoricalInputQuery(**{**query.__dict__, "candle_duration_in_mins": 30})
    address = alpha.new_workflow("penstock/volatility", longer, "candles")
    raises(lambda: alpha.run_workflow(address))


@check("Alpha.new_workflow with SchedulerParams runs by itself")
def _():
    # The one thing that OpenGradient's network does not ask for: whoever registers has a deposit, once for all tasks.
    send(KEY, scheduler.functions.deposit(), value=2 * COIN)
    address = alpha.new_workflow("penstock/volatility", query, "candles", SchedulerParams(frequency=1, duration_hours=1))
    sent = w3.eth.get_transaction_count(Account.from_key(KEY).address)
    [task] = [task for task in scheduler.functions.getAllTasks().call() if task[0] == address]
    assert task[3] == Account.from_key(KEY).address and task[7], task
    end = time.time() + 30
    while len(alpha.read_workflow_history(address, 10)) < 3:
        assert time.time() < end, "it does not run"
        time.sleep(0.1)
    assert w3.eth.get_transaction_count(Account.from_key(KEY).address) == sent, "nobody sent anything"
    logs = scheduler.events.TaskRun.get_logs(from_block=0)
    assert len(logs) >= 3 and all(log["args"]["success"] for log in logs), logs
    run = w3.eth.get_transaction(logs[0]["transactionHash"])
    receipt = w3.eth.get_transaction_receipt(run["hash"])
    assert run["to"] == SCHEDULER and run["transactionIndex"] == 0 and receipt["from"] == run["from"], run
    assert run["hash"] in w3.eth.get_block(run["blockNumber"])["transactions"]
    send(KEY, scheduler.functions.stopTask(address))
    assert all(task[0] != address for task in scheduler.functions.getAllTasks().call())
    count = len(alpha.read_workflow_history(address, 10_000))
    time.sleep(2)
    assert len(alpha.read_workflow_history(address, 10_000)) == count, "it was stopped"
