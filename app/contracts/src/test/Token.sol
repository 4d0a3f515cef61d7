// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

/// @title The least of an ERC-20, for benchmarks
contract Token {
    /// @notice `value` smallest units went from one account to another; from zero when made.
    event Transfer(address indexed from, address indexed to, uint256 value);

    /// @notice The account has less than it wants to send.
    error InsufficientBalance();

    string public constant name = "Bench";
    string public constant symbol = "BENCH";
    uint8 public constant decimals = 18;

    /// @notice All there is, in the smallest unit.
    uint256 public immutable totalSupply;
    /// @notice What each account holds, in the smallest unit.
    mapping(address account => uint256) public balanceOf;

    /// @notice Makes `supply` smallest units for the deployer.
    constructor(uint256 supply) {
        totalSupply = supply;
        balanceOf[msg.sender] = supply;
        emit Transfer(address(0), msg.sender, supply);
    }

    /// @notice Sends `value` smallest units to `to`.
    function transfer(address to, uint256 value) external returns (bool) {
        uint256 balance = balanceOf[msg.sender];
        if (balance < value) revert InsufficientBalance();
        unchecked {
            balanceOf[msg.sender] = balance - value;
            // Cannot overflow: the balances add up to the supply.
            balanceOf[to] += value;
        }
        emit Transfer(msg.sender, to, value);
        return true;
    }
}
