"""Uses a Penstock chain as a Python program would, through web3.py.

    pip install -r app/node/tests/clients/requirements.txt
    python app/node/tests/clients/web3_client.py

The environment says where the chain is, as in common.mjs. One line a check; ends at the first that fails.
"""

import json
import os
import pathlib
import sys
import traceback
from decimal import Decimal

from eth_account import Account
from eth_utils.abi import abi_to_signature
from web3 import Web3
from web3.logs import DISCARD

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]
RPC = os.environ.get("PENSTOCK_RPC") or "http://127.0.0.1:8545"
CONTRACTS = pathlib.Path(os.environ.get("PENSTOCK_CONTRACTS") or REPOSITORY / "app/contracts/out")
MODELS = pathlib.Path(os.environ.get("PENSTOCK_MODELS") or REPOSITORY / "inference/models")

CHAIN_ID = 7483
# The first account of the mnemonic `test test ... junk`.
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
PRECOMPILE = Web3.to_checksum_address("0x00000000000000000000000000000000000000F4")
# What clients of model-calling contracts send: enough for every call here, and no estimate is asked for.
MODEL_GAS = 30_000_000
FIXED = 10**6  # the examples' fixed point: six places

DIGITS, LINEAR, VOLATILITY = "penstock/digits-mlp", "penstock/linear", "penstock/volatility"

w3 = Web3(Web3.HTTPProvider(RPC, request_kwargs={"timeout": 60}))
account = Account.from_key(KEY)


def artifact(name):
    return json.loads((CONTRACTS / f"{name}.json").read_text())


inference = w3.eth.contract(address=PRECOMPILE, abi=artifact("IInference")["abi"])


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


def equal(actual, wanted, what=""):
    assert actual == wanted, f"{what} is {actual!r}, not {wanted!r}"


def rpc(method, *params):
    """One JSON-RPC request without web3's interpretation: {result} or {error}."""
    return w3.provider.make_request(method, list(params))


def result(method, *params):
    response = rpc(method, *params)
    assert response.get("error") is None, f"{method} answered {response['error']}"
    return response["result"]


def send(call=None, **fields):
    """Signs and sends a contract's call or a plain transaction; the receipt, which must be of a success."""
    base = {"from": account.address, "chainId": CHAIN_ID}
    base["nonce"] = w3.eth.get_transaction_count(account.address, "pending")
    if "gasPrice" not in fields:
        tip = w3.eth.max_priority_fee
        base |= {"maxPriorityFeePerGas": tip, "maxFeePerGas": 2 * w3.eth.get_block("latest")["baseFeePerGas"] + tip}
    base |= fields
    transaction = call.build_transaction(base) if call is not None else base
    transaction.pop("from")
    sent = w3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
    receipt = w3.eth.wait_for_transaction_receipt(sent, timeout=60, poll_latency=0.1)
    equal(receipt["status"], 1, f"status of {sent.to_0x_hex()}, which used {receipt['gasUsed']} gas,")
    return receipt


def ask_models(call, **fields):
    """Sends a call that asks models, with a fixed gas limit."""
    return send(call, gas=MODEL_GAS, **fields)


def deploy(name, *args):
    contract = w3.eth.contract(**{key: artifact(name)[key] for key in ("abi", "bytecode")})
    receipt = send(contract.constructor(*args))
    return w3.eth.contract(address=receipt["contractAddress"], abi=contract.abi)


def samples(name):
    """What onnxruntime answered: the samples of batch 1 of `penstock/NAME`."""
    recorded = json.loads((MODELS / name / "samples.json").read_text())["samples"]
    return [s for s in recorded if all(tensor["shape"][0] == 1 for tensor in s["inputs"].values())]


def to_decimal(number):
    """A number as Number (value, decimals), by its shortest decimal form: 20.0 is (2, -1)."""
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    value = int("".join(map(str, digits)))
    return (-value if sign else value, -exponent)


def from_decimal(number):
    value, decimals = number
    return float(f"{value}e{-decimals}")


def event_numbers(response):
    """All numbers of a ModelOutput in an event, which web3 decodes to names, as (value, decimals)."""
    return [(v["value"], v["decimals"]) for tensor in response["numbers"] for v in tensor["values"]]


def call_numbers(output):
    """All numbers of a ModelOutput that a call returned, which web3 decodes to tuples, as (value, decimals)."""
    return [tuple(v) for _name, values, _shape in output[0] for v in values]


def expected(sample):
    return [value for output in sample["outputs"].values() for value in output["values"]]


def assert_close(numbers, wanted):
    equal(len(numbers), len(wanted), "count of numbers")
    for i, (number, value) in enumerate(zip(map(from_decimal, numbers), wanted)):
        assert abs(number - value) <= 1e-4 * max(1, abs(value)), f"number {i} is {number}, onnxruntime says {value}"


def question(model, sample):
    """The arguments of Probe.ask for a sample of a model with one input."""
    [(name, tensor)] = sample["inputs"].items()
    return model, name, [to_decimal(value) for value in tensor["values"]], tensor["shape"]


def inferences(receipt):
    return inference.events.ModelInferenceEvent().process_receipt(receipt, errors=DISCARD)


def error(name, *args):
    """The revert bytes of a custom error."""
    [entry] = [e for e in inference.abi if e["type"] == "error" and e["name"] == name]
    selector = Web3.keccak(text=abi_to_signature(entry))[:4]
    return bytes(selector) + w3.codec.encode([i["type"] for i in entry["inputs"]], args)


# The unseen one is not that of viem.mjs, which may have run on the same chain.
sample, _, unseen = samples("digits-mlp")[:3]
_, input_name, image, shape = question(DIGITS, sample)


@check("a client connects: chain id, client version, block number")
def _():
    assert w3.is_connected(), f"nothing answers at {RPC}"
    equal(w3.eth.chain_id, CHAIN_ID)
    assert w3.client_version
    assert w3.eth.block_number >= 0
    assert w3.eth.get_balance(account.address) > 10**18


@check("the examples deploy")
def contracts():
    return (
        deploy("Probe"),
        deploy("BatchCaller"),
        deploy("ModelChain"),
        deploy("DynamicFeePool", VOLATILITY, 1000 * 10**18, 2000 * 10**18),
        deploy("Token", 10**24),
    )


probe, batch, model_chain, pool, token = contracts


def ask(model, sample):
    receipt = ask_models(probe.functions.ask(*question(model, sample)))
    [event] = inferences(receipt)
    equal(event["address"], PRECOMPILE)
    identity = event["args"]["inferenceID"]
    assert len(identity) == 66 and identity == "0x" + bytes.fromhex(identity[2:]).hex(), identity
    response = event["args"]["response"]
    equal(response["is_simulation_result"], False, "is_simulation_result")
    assert_close(event_numbers(response), expected(sample))
    return receipt, identity, event_numbers(response)


@check("a contract asks a model and has the answer in the same transaction")
def asked():
    receipt, identity, numbers = ask(DIGITS, sample)
    equal(tuple(probe.functions.firstNumber().call()), numbers[0], "the stored number")
    equal(probe.functions.simulated().call(), False, "simulated")
    [event] = probe.events.Answered().process_receipt(receipt, errors=DISCARD)
    equal(event["args"]["answerHash"], probe.functions.answerHash().call(), "the emitted hash")
    return receipt, identity, numbers


receipt, identity, numbers = asked


@check("the linear and the volatility model answer as onnxruntime recorded")
def _():
    ask(LINEAR, samples("linear")[0])
    ask(VOLATILITY, samples("volatility")[0])


@check("pipe_getTransaction, pipe_getInference and pipe_getBlockInferences know it")
def _():
    equal(result("pipe_getTransaction", receipt["transactionHash"].to_0x_hex())["stage"], "included", "stage")
    assert isinstance(result("pipe_getInference", identity), dict)
    assert identity in json.dumps(result("pipe_getBlockInferences", hex(receipt["blockNumber"])))


@check("eth_call of a known question gives the real numbers")
def _():
    output = probe.functions.ask(*question(DIGITS, sample)).call({"from": account.address})
    equal(call_numbers(output), numbers, "the answer")


@check("the estimated gas is enough for a question never asked before")
def _():
    contract = deploy("Probe")
    call = contract.functions.ask(*question(DIGITS, unseen))
    send(call, gas=call.estimate_gas({"from": account.address}))
    assert_close([contract.functions.firstNumber().call()], expected(unseen)[:1])


@check("64 independent requests in one transaction: every answer and their sum are right")
def _():
    equal(len(inferences(ask_models(batch.functions.run(64, 7)))), 64, "count of inferences")
    answers = [(10 + 3 * i) * FIXED for i in range(64)]  # seed + 3 i + 3
    equal(batch.functions.answerCount().call(), 64, "count of answers")
    for i in (0, 1, 31, 63):
        equal(batch.functions.answers(i).call(), answers[i], f"answer {i}")
    equal(batch.functions.sum().call(), sum(answers), "sum")


@check("8 requests that each ask about the answer before")
def _():
    ask_models(model_chain.functions.iterate(7, 8))
    equal(model_chain.functions.value().call(), 87 * FIXED, "value")  # 7 + 2 (0 + ... + 7) + 8 * 3


@check("one model is asked about the answer of another")
def _():
    ask_models(model_chain.functions.classifyThenScore(image))
    probabilities = expected(sample)[:10]
    best = probabilities.index(max(probabilities))
    equal(model_chain.functions.digit().call(), best, "digit")
    score = model_chain.functions.score().call() / FIXED
    assert abs(score - (best + 2 * probabilities[best] + 3)) < 3e-4, f"score {score} of digit {best}"


@check("a pool takes its fee from a model, within its clamp")
def _():
    send(pool.functions.fund(500 * 10**18, 500 * 10**18))
    for a_for_b, amount in ((True, 50), (False, 80), (True, 5), (True, 120), (False, 1)):
        swapped = ask_models(pool.functions.swap(a_for_b, amount * 10**18))
        [event] = pool.events.Swap().process_receipt(swapped, errors=DISCARD)
        assert 5 <= event["args"]["feeBps"] <= 500, event["args"]["feeBps"]
        equal(pool.functions.lastFeeBps().call(), event["args"]["feeBps"], "the stored fee")


def revert_bytes(call):
    """The revert bytes that the precompile gave to a try- function, as a contract keeps them."""
    ask_models(call)
    equal(probe.functions.lastOk().call(), False, "lastOk")
    return bytes(probe.functions.lastError().call())


@check("an unknown model is exactly UnknownModel()")
def _():
    equal(revert_bytes(probe.functions.tryAsk("nobody/nothing", input_name, image, shape)), error("UnknownModel"))


@check("a wrong shape, a wrong name and a number out of range are three InvalidInput(uint16)")
def _():
    codes = set()
    for name, values, dimensions in (
        (input_name, image[1:], [1, 63]),
        ("no-such-input", image, shape),
        (input_name, [(1, -60), *image[1:]], shape),
    ):
        found = revert_bytes(probe.functions.tryAsk(DIGITS, name, values, dimensions))
        equal(len(found), 36, "length of the revert bytes")
        equal(found[:4], error("InvalidInput", 0)[:4], "selector")
        codes.add(found[4:])
    equal(len(codes), 3, "count of different codes")


@check("modes and kinds of call that are not served are ModeNotSupported")
def _():
    for mode in (1, 2):
        found = revert_bytes(probe.functions.askMode(mode, DIGITS, input_name, image, shape))
        equal(found, error("ModeNotSupported", mode), f"mode {mode}")
    found = revert_bytes(probe.functions.tryCompletion(DIGITS, "Once upon a time"))
    equal(found[:4], error("ModeNotSupported", 0)[:4], "completion")


linear_call = inference.encode_abi(
    "runModelInference", args=[(0, LINEAR, ([("x", [(4, 0), (5, 0)], [2])], []))]
)


@check("delegatecall and value are refused")
def _():
    ask_models(probe.functions.delegateAsk(linear_call))
    equal(probe.functions.lastOk().call(), False, "delegatecall")
    ask_models(probe.functions.valueAsk(linear_call), value=1)
    equal(probe.functions.lastOk().call(), False, "value")


@check("a staticcall does not harm")
def _():
    ask_models(probe.functions.staticAsk(linear_call))


@check("the older generation is served at 0x1F4")
def _():
    call = probe.functions.askV1(LINEAR, "x", [(4, 0), (5, 0)], [2])
    equal(call_numbers(call.call({"from": account.address})), [(17, 0)], "the answer")
    ask_models(call)
    equal(tuple(probe.functions.firstNumber().call()), (17, 0), "the stored number")


@check("coins and tokens are transferred")
def _():
    to = Account.create().address
    send(to=to, value=1, gas=21_000)
    equal(w3.eth.get_balance(to), 1, "balance")
    send(token.functions.transfer(to, 5))
    equal(token.functions.balanceOf(to).call(), 5, "token balance")


@check("eth_getLogs finds inferences by address and by topic")
def _():
    block = {"fromBlock": receipt["blockNumber"], "toBlock": receipt["blockNumber"]}
    topics = {"topics": ["0x1b283af3452f3718585ce100f80d9aa81fc60924db4a582a36db6aae3b109d87"]}
    for condition in ({"address": PRECOMPILE}, topics, {"address": PRECOMPILE, **topics}):
        found = [log["transactionHash"] for log in w3.eth.get_logs({**block, **condition})]
        assert receipt["transactionHash"] in found, condition


@check("legacy gas-price transactions are included")
def _():
    equal(send(to=account.address, value=1, gas=21_000, gasPrice=w3.eth.gas_price + 10**9)["type"], 0, "type")


def signed(signer, nonce):
    tip = w3.eth.max_priority_fee
    fees = {"maxPriorityFeePerGas": tip, "maxFeePerGas": 2 * w3.eth.get_block("latest")["baseFeePerGas"] + tip}
    transfer = {"chainId": CHAIN_ID, "to": signer.address, "value": 1, "gas": 21_000, "nonce": nonce, **fees}
    return signer.sign_transaction(transfer).raw_transaction.to_0x_hex()


@check("five transactions sent at once, out of order, are all included")
def _():
    first = w3.eth.get_transaction_count(account.address, "pending")
    raw = [signed(account, first + ahead) for ahead in (4, 0, 3, 1, 2)]
    for sent in [result("eth_sendRawTransaction", transaction) for transaction in raw]:
        equal(w3.eth.wait_for_transaction_receipt(sent, timeout=60, poll_latency=0.1)["status"], 1, "status")
    equal(w3.eth.get_transaction_count(account.address), first + 5, "nonce")


@check("a used nonce and a missing balance are refused in words that clients look for")
def _():
    for signer, words in ((account, "nonce too low"), (Account.create(), "insufficient funds")):
        refused = rpc("eth_sendRawTransaction", signed(signer, 0)).get("error")
        assert refused, f"accepted, not refused with {words}"
        assert words in refused["message"], refused["message"]


@check("an account is delegated to a contract (EIP-7702)")
def _():
    authority = Account.create()
    authorization = authority.sign_authorization({"chainId": CHAIN_ID, "address": token.address, "nonce": 0})
    receipt = send(to=account.address, gas=100_000, authorizationList=[authorization])
    equal(receipt["type"], 4, "type")
    equal(w3.eth.get_code(authority.address).to_0x_hex(), "0xef0100" + token.address[2:].lower(), "code")


@check("an access list is made and used, and state is overridden in a call")
def _():
    call = {"from": account.address, "to": token.address, "data": token.encode_abi("transfer", args=[account.address, 1])}
    listed = w3.eth.create_access_list(call)
    equal(listed["accessList"][0]["address"], token.address, "the address in the list")
    [slot] = listed["accessList"][0]["storageKeys"]  # of one account that sends to itself
    overridden = w3.eth.call(
        {"to": token.address, "data": token.encode_abi("balanceOf", args=[account.address])},
        "latest",
        {token.address: {"stateDiff": {slot: "0x" + f"{77:064x}"}}},
    )
    equal(int.from_bytes(overridden), 77, "the balance")


@check("a transaction that asked a model is traced, and a block is simulated")
def _():
    plain = result("debug_traceTransaction", receipt["transactionHash"].to_0x_hex(), {"tracer": "callTracer"})
    equal(Web3.to_checksum_address(plain["calls"][0]["to"]), PRECOMPILE, "the address of the inner call")
    [block] = w3.eth.simulate_v1(
        {"blockStateCalls": [{"calls": [{"from": account.address, "to": account.address, "value": "0x1"}]}]}, "latest"
    )
    equal(block["calls"][0]["status"], 1, "status of the simulated call")


@check("a waiting transaction is replaced by one that pays more")
def _():
    nonce = w3.eth.get_transaction_count(account.address)
    first = signed(account, nonce + 1)
    result("eth_sendRawTransaction", first)
    again = rpc("eth_sendRawTransaction", first).get("error")
    assert again and "already known" in again["message"], again
    replaced = Web3.keccak(hexstr=first)
    fees = {"maxPriorityFeePerGas": 3 * 10**9, "maxFeePerGas": 50 * 10**9}
    cancel = {"chainId": CHAIN_ID, "to": account.address, "value": 0, "gas": 21_000, "nonce": nonce + 1, **fees}
    cancelled = w3.eth.send_raw_transaction(account.sign_transaction(cancel).raw_transaction)
    result("eth_sendRawTransaction", signed(account, nonce))
    equal(w3.eth.wait_for_transaction_receipt(cancelled, timeout=60, poll_latency=0.1)["status"], 1, "status")
    equal(result("eth_getTransactionReceipt", replaced.to_0x_hex()), None, "the receipt of the replaced one")
