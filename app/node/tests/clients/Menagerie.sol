// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.30;

/// @title Is gone when its constructor ends
contract Mayfly {
    constructor(address payable to) payable {
        selfdestruct(to);
    }
}

/// @title One of everything that the EVM can do, for anvil.mjs
/// @notice Nothing here reads a block hash or PREVRANDAO: they are the only things that two chains with the same
/// transactions do not share.
contract Menagerie {
    error Refused(uint256 kind);

    mapping(uint256 key => uint256) public values;
    bytes public text;
    uint256[] public list;

    constructor() payable {}

    receive() external payable {}

    fallback() external payable {
        values[msg.data.length] = msg.value;
    }

    function write(uint256 key, uint256 value) external payable {
        values[key % 64] = value;
    }

    function clear(uint256 from, uint256 count) external {
        for (uint256 i = 0; i < count % 64; i++) delete values[(from + i) % 64];
    }

    function push(bytes calldata data) external {
        text = data;
        for (uint256 i = 0; i < data.length % 7; i++) list.push(data.length + i);
        if (list.length > 20) delete list;
    }

    function log(uint256 kind, bytes memory data) external {
        assembly {
            let at := add(data, 32)
            let size := mload(data)
            switch mod(kind, 5)
            case 0 { log0(at, size) }
            case 1 { log1(at, size, kind) }
            case 2 { log2(at, size, kind, caller()) }
            case 3 { log3(at, size, kind, caller(), size) }
            default { log4(at, size, kind, caller(), size, not(0)) }
        }
    }

    function fail(uint256 kind) external {
        values[kind % 64] = 1;
        if (kind == 0) revert("a reason");
        if (kind == 1) revert Refused(kind);
        if (kind == 2) assert(false);
        if (kind == 3) while (true) values[gasleft() % 64]++;
        if (kind == 4) assembly { invalid() }
        if (kind == 5) this.fail(5);
        if (kind == 6) assembly { revert(0, 0) }
        if (kind == 7) try this.fail(0) {} catch (bytes memory reason) { text = reason; }
        if (kind == 8) try this.fail{gas: 30_000}(3) {} catch { values[8] = 2; }
    }

    /// @notice call, delegatecall, staticcall or callcode; what came back is kept.
    function relay(uint256 kind, address to, uint256 value, uint256 gas_, bytes memory data) external payable {
        bool ok;
        assembly {
            switch mod(kind, 4)
            case 0 { ok := call(gas_, to, value, add(data, 32), mload(data), 0, 0) }
            case 1 { ok := delegatecall(gas_, to, add(data, 32), mload(data), 0, 0) }
            case 2 { ok := staticcall(gas_, to, add(data, 32), mload(data), 0, 0) }
            default { ok := callcode(gas_, to, value, add(data, 32), mload(data), 0, 0) }
            let size := returndatasize()
            let at := mload(0x40)
            returndatacopy(at, 0, size)
            sstore(add(0x1000, mod(kind, 8)), add(keccak256(at, size), ok))
        }
    }

    function spawn(bytes memory code, uint256 value, uint256 salt) external payable {
        address child;
        assembly {
            switch mod(salt, 2)
            case 0 { child := create(value, add(code, 32), mload(code)) }
            default { child := create2(value, add(code, 32), mload(code), salt) }
        }
        values[salt % 64] = uint160(child) + child.code.length;
    }

    /// @notice Since Cancun only one that was made in the same transaction goes away.
    function die(address payable to) external {
        selfdestruct(to);
    }

    function bornToDie(address payable to) external payable {
        new Mayfly{value: msg.value}(to);
    }

    function around() external payable {
        uint256 sum = uint256(keccak256(abi.encode(
            block.number, block.timestamp, block.basefee, block.gaslimit, block.chainid, block.coinbase, block.blobbasefee,
            tx.gasprice, tx.origin, msg.sender, address(this).balance
        )));
        values[sum % 64] = sum;
    }

    function look(address who) external {
        unchecked {
            values[uint160(who) % 64] = who.balance + who.code.length + uint256(who.codehash);
        }
    }

    function transient_(uint256 key, uint256 value) external {
        assembly {
            tstore(key, value)
            tstore(add(key, 1), tload(key))
            sstore(0x2000, add(tload(add(key, 1)), tload(add(key, 2))))
        }
    }

    function copy(uint256 from, uint256 to, uint256 size) external {
        assembly {
            let at := mload(0x40)
            calldatacopy(at, 0, calldatasize())
            mcopy(add(at, mod(to, 4096)), add(at, mod(from, 4096)), mod(size, 4096))
            sstore(0x3000, keccak256(at, 4096))
        }
    }

    function zeros(uint256 x) external {
        assembly { sstore(0x4000, clz(x)) }
    }
}
