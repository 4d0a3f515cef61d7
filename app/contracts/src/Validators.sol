// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

/// The validators of the chain, with their public keys. Predeployed at 0x00000000000000000000000000000000000000F6 on
/// every network with validators (not on `penstock dev`); the genesis fills the storage, whose layout
/// app/chain/src/validators.rs knows.
///
/// Whatever a block changes here becomes CometBFT's validator updates of that block: the change counts from
/// the second block after it. The bounds keep CometBFT from halting: there is always a validator, and the
/// powers' sum stays far below its limit.
contract Validators {
    /// An ed25519 key is `head`; a secp256k1 key is `head` and `tail`.
    struct Validator {
        bytes32 head;
        bytes1 tail;
        uint8 kind;
        uint64 power;
    }

    uint8 private constant ED25519 = 1;
    uint64 private constant MAX_POWER = 2 ** 40;
    uint256 private constant MAX_VALIDATORS = 200;

    /// The account that may change the validators; zero: nobody.
    address public admin;
    Validator[] private list;

    event ValidatorSet(bytes32 indexed ed25519Key, uint64 power);
    event AdminSet(address indexed admin);

    error NotAdmin();
    error PowerTooLarge();
    error TooManyValidators();
    error LastValidator();
    error UnknownValidator();

    modifier onlyAdmin() {
        if (msg.sender != admin) revert NotAdmin();
        _;
    }

    /// Adds a validator with an ed25519 key, gives one another power, or (power 0) removes it.
    function setValidator(bytes32 ed25519Key, uint64 power) external onlyAdmin {
        if (power > MAX_POWER) revert PowerTooLarge();
        uint256 length = list.length;
        uint256 index = 0;
        while (index < length && !(list[index].head == ed25519Key && list[index].kind == ED25519)) index++;
        if (power > 0) {
            if (index == length) {
                if (length == MAX_VALIDATORS) revert TooManyValidators();
                list.push(Validator(ed25519Key, 0, ED25519, power));
            } else {
                list[index].power = power;
            }
        } else {
            if (index == length) revert UnknownValidator();
            if (length == 1) revert LastValidator();
            list[index] = list[length - 1];
            list.pop();
        }
        emit ValidatorSet(ed25519Key, power);
    }

    /// Hands the right to change validators on; to zero: gives it up for ever.
    function setAdmin(address next) external onlyAdmin {
        admin = next;
        emit AdminSet(next);
    }

    /// Number of validators.
    function count() external view returns (uint256) {
        return list.length;
    }

    /// The validator at an index below `count()`; the order changes when one is removed.
    function validatorAt(uint256 index) external view returns (Validator memory) {
        return list[index];
    }
}
