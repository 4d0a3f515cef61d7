"""Asks a running chain every method of Ethereum's specification, and checks the answers against its schemas.

    python app/node/tests/clients/openrpc.py

PENSTOCK_FIXTURES is the folder with execution-apis/openrpc.json (default: shared/fixtures beside the repository); without
it the checks are skipped. One line a method; all are asked before it ends.
"""

import json
import os
import pathlib
import sys
import time
import urllib.request

from eth_account import Account
from jsonschema import Draft7Validator
from web3 import Web3

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]
RPC = os.environ.get("PENSTOCK_RPC") or "http://127.0.0.1:8545"
CONTRACTS = pathlib.Path(os.environ.get("PENSTOCK_CONTRACTS") or REPOSITORY / "app/contracts/out")
FIXTURES = pathlib.Path(os.environ.get("PENSTOCK_FIXTURES") or REPOSITORY.parent / "shared/fixtures")
SPECIFICATION = FIXTURES / "execution-apis/openrpc.json"
if not SPECIFICATION.exists():
    print(f"skipped: {SPECIFICATION} is not there")
    sys.exit(0)

CHAIN_ID = 7483
# The first account of the mnemonic `test test ... junk`.
account = Account.from_key("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
PRECOMPILE = Web3.to_checksum_address("0x00000000000000000000000000000000000000f4")
UNKNOWN = "0x" + "11" * 32
NOBODY = Web3.to_checksum_address("0x00000000000000000000000000000000c0ffee02")

# Methods that are not asked, or that need not be there.
ABSENT = {
    "debug_getRawBlockAccessList": "of a fork to come (EIP-7928)",
    "eth_getBlockAccessList": "of a fork to come (EIP-7928)",
    "eth_config": "describes forks by block time; here the genesis says the one fork",
    "eth_sign": "the node holds no keys",
    "eth_signTransaction": "the node holds no keys",
    "eth_sendTransaction": "the node holds no keys",
    "testing_buildBlockV1": "for tests of block builders that an engine API drives",
}

specification = json.loads(SPECIFICATION.read_text())
components = {"components": specification["components"]}


def request(method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    asked = urllib.request.Request(RPC, body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as response:
        return json.load(response)


def result(method, *params):
    answer = request(method, *params)
    assert "result" in answer, f"{method} {params}: {answer}"
    return answer["result"]


def artifact(name):
    return json.loads((CONTRACTS / f"{name}.json").read_text())


def sign(**fields):
    base = {"chainId": CHAIN_ID, "gas": 3_000_000, "value": 0}
    if "gasPrice" not in fields:
        base |= {"maxFeePerGas": 20 * 10**9, "maxPriorityFeePerGas": 10**9}
    base["nonce"] = int(result("eth_getTransactionCount", account.address, "pending"), 16)
    return account.sign_transaction(base | fields).raw_transaction.to_0x_hex()


def send(**fields):
    sent = result("eth_sendRawTransaction", sign(**fields))
    for _ in range(200):
        receipt = result("eth_getTransactionReceipt", sent)
        if receipt:
            return receipt
        time.sleep(0.1)
    raise AssertionError(f"{sent} was not included: {result('pipe_getTransaction', sent)}")


# A chain with something of everything.
token_code = artifact("Token")["bytecode"] + f"{10**6:064x}"
created = send(data=token_code)
TOKEN = Web3.to_checksum_address(created["contractAddress"])
TRANSFER = "0xa9059cbb" + NOBODY[2:].rjust(64, "0") + f"{5:064x}"
logged = send(to=TOKEN, data=TRANSFER)
legacy = send(to=NOBODY, value=1, gasPrice=20 * 10**9)
listed = send(to=TOKEN, data=TRANSFER, gasPrice=20 * 10**9, accessList=[{"address": TOKEN, "storageKeys": [UNKNOWN]}])
failed = send(to=TOKEN, data="0xffffffff")
authorization = Account.create().sign_authorization({"chainId": CHAIN_ID, "address": TOKEN, "nonce": 0})
delegated = send(to=NOBODY, authorizationList=[authorization])
# A question, straight to the precompile.
inference = Web3().eth.contract(address=PRECOMPILE, abi=artifact("IInference")["abi"])
QUESTION = inference.encode_abi(
    "runModelInference", args=[(0, "penstock/linear", ([("x", [(4, 0), (5, 0)], [2])], []))]
)
asked = send(to=PRECOMPILE, data=QUESTION)
assert asked["status"] == "0x1" and asked["logs"], asked
receipts = [created, logged, legacy, listed, failed, delegated, asked]
# Behind a gap: it waits in the pool.
nonce = int(result("eth_getTransactionCount", account.address, "latest"), 16)
waiting = result("eth_sendRawTransaction", sign(to=NOBODY, nonce=nonce + 5))

hashes = [receipt["transactionHash"] for receipt in receipts]
blocks = [receipt["blockNumber"] for receipt in receipts]
block_hashes = [receipt["blockHash"] for receipt in receipts]
log_filter = result("eth_newFilter", {"fromBlock": "earliest", "address": TOKEN})
block_filter = result("eth_newBlockFilter")
call = {"from": account.address, "to": TOKEN, "data": TRANSFER}
model_call = {"from": account.address, "to": PRECOMPILE, "data": QUESTION}
tracers = [
    {},
    {"tracer": "callTracer"},
    {"tracer": "callTracer", "tracerConfig": {"withLog": True}},
    {"tracer": "prestateTracer"},
]
tags = ["earliest", "latest", "safe", "finalized", "pending", "0x1"]
simulation = {
    "blockStateCalls": [
        {
            "blockOverrides": {"gasLimit": "0x2faf080"},
            "stateOverrides": {NOBODY: {"balance": "0xffff"}},
            "calls": [call, model_call],
        },
        {
            "calls": [
                {"from": NOBODY, "to": account.address, "value": "0x1"},
                {"from": NOBODY, "to": TOKEN, "data": "0xffffffff"},
            ]
        },
    ],
    "traceTransfers": True,
    "returnFullTransactions": True,
}

QUESTIONS = {
    "debug_getRawHeader": [[tag] for tag in tags],
    "debug_getRawBlock": [[number] for number in blocks],
    "debug_getRawTransaction": [[sent] for sent in hashes],
    "debug_getRawReceipts": [[number] for number in blocks],
    "debug_getBadBlocks": [[]],
    "debug_traceBlockByNumber": [[number, tracer] for number in blocks for tracer in tracers],
    "debug_traceBlockByHash": [[block, tracer] for block in block_hashes for tracer in tracers],
    "debug_traceTransaction": [[sent, tracer] for sent in hashes for tracer in tracers],
    "eth_getBlockByHash": [[block, full] for block in [*block_hashes, UNKNOWN] for full in (True, False)],
    "eth_getBlockByNumber": [[number, full] for number in [*blocks, *tags, "0xffffffff"] for full in (True, False)],
    "eth_getBlockTransactionCountByHash": [[block] for block in [*block_hashes, UNKNOWN]],
    "eth_getBlockTransactionCountByNumber": [[number] for number in [*blocks, *tags, "0xffffffff"]],
    "eth_getBlockReceipts": [[number] for number in [*blocks, *tags, "0xffffffff"]],
    "eth_capabilities": [[]],
    "eth_chainId": [[]],
    "eth_syncing": [[]],
    "eth_coinbase": [[]],
    "eth_accounts": [[]],
    "eth_blockNumber": [[]],
    "net_version": [[]],
    "eth_call": [[call, "latest"], [model_call, "latest"], [{"to": NOBODY}, "latest"]],
    "eth_estimateGas": [[call], [model_call, "latest"], [{"data": token_code}]],
    "eth_createAccessList": [[call, "latest"], [model_call, "latest"]],
    "eth_simulateV1": [[simulation, "latest"]],
    "eth_gasPrice": [[]],
    "eth_baseFee": [[]],
    "eth_blobBaseFee": [[]],
    "eth_maxPriorityFeePerGas": [[]],
    "eth_feeHistory": [["0x5", "latest", [10, 50]], ["0x400", "latest", []], ["0x1", "earliest", []]],
    "eth_fillTransaction": [
        [call],
        [{**call, "gasPrice": "0x4a817c800"}],
        [{**call, "accessList": [{"address": TOKEN, "storageKeys": []}]}],
    ],
    "eth_newFilter": [[{"address": TOKEN}]],
    "eth_newBlockFilter": [[]],
    "eth_newPendingTransactionFilter": [[]],
    "eth_getFilterChanges": [[log_filter], [block_filter]],
    "eth_getFilterLogs": [[log_filter]],
    "eth_getLogs": [[{"fromBlock": "earliest", "toBlock": "latest"}], [{"blockHash": logged["blockHash"]}]],
    "eth_uninstallFilter": [[result("eth_newBlockFilter")], ["0xffffffff"]],
    "eth_getBalance": [[NOBODY, tag] for tag in tags],
    "eth_getStorageAt": [[TOKEN, "0x0", "latest"], [TOKEN, UNKNOWN, "latest"]],
    "eth_getStorageValues": [[{TOKEN: ["0x" + "00" * 32, UNKNOWN]}, "latest"]],
    "eth_getTransactionCount": [[account.address, tag] for tag in tags],
    "eth_getCode": [[TOKEN, "latest"], [NOBODY, "latest"]],
    "eth_getProof": [[TOKEN, ["0x" + "00" * 32], "latest"], [NOBODY, [], "latest"]],
    "eth_sendRawTransaction": [[sign(to=NOBODY, nonce=nonce + 6)]],
    "eth_getTransactionByHash": [[sent] for sent in [*hashes, waiting, UNKNOWN]],
    "eth_getTransactionByBlockHashAndIndex": [
        [block, index] for block in [*block_hashes, UNKNOWN] for index in ("0x0", "0xff")
    ],
    "eth_getTransactionByBlockNumberAndIndex": [[block, index] for block in blocks for index in ("0x0", "0xff")],
    "eth_getTransactionReceipt": [[sent] for sent in [*hashes, waiting, UNKNOWN]],
    "txpool_status": [[]],
    "txpool_content": [[]],
    "txpool_contentFrom": [[account.address], [NOBODY]],
}

# Complaints that are no fault of the node: in which answers, what they say, and why.
KNOWN = (
    (
        "eth_fillTransaction",
        "'gasPrice' is a required property",
        "one with a fee cap has none; geth answers null, which fits no more",
    ),
    (
        "eth_getFilterChanges",
        "[] is valid under each of",
        "an empty list fits two alternatives, of which one must be chosen",
    ),
    (
        "eth_getTransactionByHash",
        "'blockTimestamp' is a required property",
        "it is in the pool, and in no block; geth answers null",
    ),
)


def nearest(error):
    """Of alternatives, why the one does not fit that comes nearest."""
    branches = {}
    for cause in error.context:
        branches.setdefault(cause.relative_schema_path[0], []).append(cause)
    if not branches:
        return error
    # `null` is nearly always an alternative, and never the one that was meant.
    return nearest(min(branches.values(), key=lambda causes: ("null" in causes[0].message, len(causes)))[0])


wrong = []
for method, described in specification["methods"].items():
    if method in ABSENT:
        print(f"# {method}: not asked, {ABSENT[method]}")
        continue
    validator = Draft7Validator({**described["result"]["schema"], **components})
    complaints, known = [], set()
    for params in QUESTIONS[method]:
        answer = request(method, *params)
        if "error" in answer:
            complaints.append(f"{params}: {answer['error']}")
            continue
        for error in map(nearest, validator.iter_errors(answer["result"])):
            reasons = [reason for of, says, reason in KNOWN if of == method and says in error.message]
            known.update(reasons)
            if not reasons:
                complaints.append(f"{params}: at {list(error.absolute_path)}: {error.message[:300]}")
    print(
        f"{'not ok' if complaints else 'ok'} - {method}: {len(QUESTIONS[method])} answers",
        *(f"(known: {why})" for why in known),
    )
    wrong += [f"{method} {complaint}" for complaint in complaints]
for complaint in wrong:
    print(complaint[:1000], file=sys.stderr)
sys.exit(1 if wrong else 0)
