// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.28;

/// @title Contracts that run by themselves
/// @notice An account registers a contract, and the chain calls the contract's `run()` every `frequency` seconds until
/// `endTime`, at the top of a block, as long as the account's deposit pays for it. There is no keeper: the proposer of a
/// block puts in the tasks that are due, and every validator checks that each is due, paid, and in its turn.
/// @dev Predeployed at 0x00000000000000000000000000000000000000F9 where the genesis has a `scheduler`. The node reads the
/// storage directly, in the layout that app/chain/src/tasks/layout.rs repeats; whether a task may run is decided here, by
/// `runTask`, and nowhere else.
contract WorkflowScheduler {
    /// @dev Two slots: target, frequency, gasLimit; owner, nextRun, endTime, each from the lowest byte on.
    struct Task {
        address target;
        uint48 frequency;
        uint48 gasLimit;
        address owner;
        uint48 nextRun;
        uint48 endTime;
    }

    /// @notice A task as others see it.
    /// @param contractAddress Whose `run()` is called.
    /// @param endTime When it ends, in seconds since the epoch.
    /// @param frequency Seconds between two runs.
    /// @param owner Who registered it and pays.
    /// @param nextRun The time from which on it is due.
    /// @param gasLimit Gas that `run()` may use.
    /// @param id Its number.
    /// @param isPaid Whether the owner's deposit pays for a run at the base fee of this block.
    struct TaskInfo {
        address contractAddress;
        uint256 endTime;
        uint256 frequency;
        address owner;
        uint256 nextRun;
        uint256 gasLimit;
        uint256 id;
        bool isPaid;
    }

    /// @notice Tasks of all accounts together.
    uint256 public constant MAX_TASKS = 1024;
    /// @notice Gas that a task's `run()` may use if its owner says nothing.
    uint256 public constant DEFAULT_GAS_LIMIT = 3_000_000;
    /// @notice Gas of a run besides the task's own.
    uint256 public constant RUN_OVERHEAD = 150_000;
    /// @dev Gas that a run uses before `runTask` begins and after it has looked at the gas for the last time.
    uint256 private constant UNSEEN_GAS = 32_000;
    /// @dev The sender of the transactions that run tasks. Nobody has a key to it.
    address private constant SYSTEM = 0xfFfFfffFFFFFFffFFfFFFFfFFfFFffFFfFFFFff9;
    /// @dev `run()`
    uint256 private constant RUN_SELECTOR = 0xc0406226;

    /// @notice Gas that a task's `run()` may have at most. From the genesis.
    uint64 public maxGasLimit;
    /// @notice Wei that a run pays to the proposer's account. From the genesis.
    uint128 public tip;
    uint64 private lastId;
    uint256[] private active;
    mapping(uint256 id => Task) private tasks;
    /// @notice Wei that each task holds of its owner's deposit while it is registered. From the genesis.
    uint256 public stake;
    mapping(address owner => mapping(address target => uint256 id)) private idOf;
    mapping(uint256 id => uint256 index) private indexOf;
    /// @notice Wei that an account can pay runs with, or withdraw.
    mapping(address owner => uint256) public depositOf;
    /// @notice Wei that runs have burned: it stays here for ever.
    uint256 public burned;
    /// @dev While a task runs its owner's deposit is short of what the run may cost.
    bool private transient running;

    /// @notice A contract is called from now on.
    event TaskRegistered(uint256 indexed id, address indexed owner, address indexed contractAddress, uint256 endTime, uint256 frequency);
    /// @notice Another end or frequency.
    event TaskUpdated(uint256 indexed id, uint256 endTime, uint256 frequency);
    /// @notice A contract is not called any more.
    event TaskStopped(uint256 indexed id);
    /// @notice A task ran. `success`: whether its `run()` did not fail. `fee`: what was burned of the owner's deposit.
    event TaskRun(uint256 indexed id, address indexed contractAddress, bool success, uint256 fee);
    /// @notice A deposit grew.
    event Deposited(address indexed owner, uint256 amount);
    /// @notice A deposit was taken back.
    event Withdrawn(address indexed owner, uint256 amount);

    /// @notice There is no code at the address.
    error NoContract();
    /// @notice The caller has registered this contract already.
    error AlreadyRegistered();
    /// @notice The end is not later than now, or the frequency is 0, or a number is too large.
    error InvalidSchedule();
    /// @notice The gas limit is 0 or above `maxGasLimit`.
    error InvalidGasLimit();
    /// @notice `MAX_TASKS` are registered; `prune` makes room where one is over or not paid.
    error TooManyTasks();
    /// @notice The caller has no such task.
    error UnknownTask();
    /// @notice The deposit is too small: this much is needed.
    error DepositTooSmall(uint256 needed);
    /// @notice The task is neither over nor unpaid.
    error StillRunning();
    /// @notice Only the chain itself may do this.
    error NotSystem();
    /// @notice The task is not due.
    error NotDue();
    /// @notice The account took no coins.
    error TransferFailed();

    /// @notice Adds to the caller's deposit.
    receive() external payable {
        _deposit(msg.sender);
    }

    /// @notice Adds to the caller's deposit.
    function deposit() external payable {
        _deposit(msg.sender);
    }

    /// @notice Adds to somebody's deposit.
    function depositFor(address owner) external payable {
        _deposit(owner);
    }

    /// @notice Takes coins of the caller's deposit back.
    function withdraw(uint256 amount) external {
        uint256 held = depositOf[msg.sender];
        if (amount > held) revert DepositTooSmall(amount);
        depositOf[msg.sender] = held - amount;
        emit Withdrawn(msg.sender, amount);
        (bool sent,) = msg.sender.call{value: amount}("");
        if (!sent) revert TransferFailed();
    }

    /// @notice Has `contractAddress` called from the next block on, every `frequency` seconds until `endTime`. What comes
    /// with the call is added to the deposit, of which the task holds `stake` until it is stopped.
    function registerTask(address contractAddress, uint256 endTime, uint256 frequency) external payable {
        if (msg.value > 0) _deposit(msg.sender);
        if (contractAddress.code.length == 0) revert NoContract();
        _checkSchedule(endTime, frequency);
        if (idOf[msg.sender][contractAddress] != 0) revert AlreadyRegistered();
        if (active.length == MAX_TASKS) revert TooManyTasks();
        uint256 held = depositOf[msg.sender];
        if (held < stake) revert DepositTooSmall(stake);
        depositOf[msg.sender] = held - stake;
        uint256 id = ++lastId;
        uint256 gasLimit = DEFAULT_GAS_LIMIT < maxGasLimit ? DEFAULT_GAS_LIMIT : maxGasLimit;
        tasks[id] = Task({
            target: contractAddress,
            frequency: uint48(frequency),
            gasLimit: uint48(gasLimit),
            owner: msg.sender,
            nextRun: uint48(block.timestamp),
            endTime: uint48(endTime)
        });
        idOf[msg.sender][contractAddress] = id;
        indexOf[id] = active.length;
        active.push(id);
        emit TaskRegistered(id, msg.sender, contractAddress, endTime, frequency);
    }

    /// @notice Gives the caller's task for `contractAddress` another end and frequency.
    function updateTask(address contractAddress, uint256 endTime, uint256 frequency) external {
        _checkSchedule(endTime, frequency);
        (uint256 id, Task storage task) = _own(contractAddress);
        uint256 next = block.timestamp + frequency;
        if (next < task.nextRun) task.nextRun = uint48(next);
        (task.endTime, task.frequency) = (uint48(endTime), uint48(frequency));
        emit TaskUpdated(id, endTime, frequency);
    }

    /// @notice Gives the caller's task for `contractAddress` another gas limit.
    function setGasLimit(address contractAddress, uint256 gasLimit) external {
        if (gasLimit == 0 || gasLimit > maxGasLimit) revert InvalidGasLimit();
        (, Task storage task) = _own(contractAddress);
        task.gasLimit = uint48(gasLimit);
    }

    /// @notice Ends the caller's task for `contractAddress` and frees its stake.
    function stopTask(address contractAddress) external {
        (uint256 id,) = _own(contractAddress);
        _remove(id);
    }

    /// @notice Ends a task that is over or that its owner cannot pay; its stake goes back to the owner's deposit. Anybody may
    /// do this: places are few.
    function prune(uint256 id) external {
        Task storage task = tasks[id];
        if (task.owner == address(0)) revert UnknownTask();
        if (running || (block.timestamp < task.endTime && _isPaid(task))) revert StillRunning();
        _remove(id);
    }

    /// @notice All tasks, in no particular order.
    function getAllTasks() external view returns (TaskInfo[] memory all) {
        all = new TaskInfo[](active.length);
        for (uint256 i = 0; i < all.length; i++) {
            uint256 id = active[i];
            Task storage task = tasks[id];
            all[i] = TaskInfo({
                contractAddress: task.target,
                endTime: task.endTime,
                frequency: task.frequency,
                owner: task.owner,
                nextRun: task.nextRun,
                gasLimit: task.gasLimit,
                id: id,
                isPaid: _isPaid(task)
            });
        }
    }

    /// @notice Wei that a deposit must have for a run with this gas limit at the base fee of this block.
    function costOfRun(uint256 gasLimit) public view returns (uint256) {
        return runGas(gasLimit) * block.basefee + tip;
    }

    /// @notice Gas limit of the transaction that runs a task: with it `run()` gets `gasLimit` under the rule of the 64th part.
    function runGas(uint256 gasLimit) public pure returns (uint256) {
        return gasLimit + gasLimit / 63 + RUN_OVERHEAD;
    }

    /// @notice Runs a task; reverts if it is not due or not paid. A failure of the task itself is no reason: it pays and is
    /// scheduled again like any other.
    function runTask(uint256 id) external {
        uint256 gasAtStart = gasleft();
        if (msg.sender != SYSTEM) revert NotSystem();
        Task storage task = tasks[id];
        (address owner, address target, uint256 gasLimit) = (task.owner, task.target, task.gasLimit);
        if (owner == address(0)) revert UnknownTask();
        (uint256 next, uint256 frequency) = (task.nextRun, task.frequency);
        if (block.timestamp < next || block.timestamp >= task.endTime) revert NotDue();

        // Taken before the call and given back after it, so that the call cannot spend it.
        uint256 most = costOfRun(gasLimit);
        if (depositOf[owner] < most) revert DepositTooSmall(most);
        depositOf[owner] -= most;
        // Runs that were missed are not made up for.
        next += frequency;
        task.nextRun = uint48(next > block.timestamp ? next : block.timestamp + frequency);

        running = true;
        bool success;
        bool tipped = true;
        uint256 toProposer = tip;
        assembly ("memory-safe") {
            // Nothing of what the calls return is copied.
            mstore(0, shl(224, RUN_SELECTOR))
            success := call(gasLimit, target, 0, 0, 4, 0, 0)
            // Without gas but the stipend: the proposer's account may be any contract.
            if toProposer { tipped := call(0, coinbase(), toProposer, 0, 0, 0, 0) }
        }
        running = false;

        uint256 fee = (gasAtStart - gasleft() + UNSEEN_GAS) * block.basefee;
        if (fee > most - toProposer) fee = most - toProposer;
        depositOf[owner] += most - toProposer - fee;
        burned += tipped ? fee : fee + toProposer;
        emit TaskRun(id, target, success, fee);
    }

    function _deposit(address owner) private {
        depositOf[owner] += msg.value;
        emit Deposited(owner, msg.value);
    }

    function _checkSchedule(uint256 endTime, uint256 frequency) private view {
        bool fits = endTime <= type(uint48).max && frequency <= type(uint40).max;
        if (!fits || endTime <= block.timestamp || frequency == 0) revert InvalidSchedule();
    }

    function _own(address target) private view returns (uint256 id, Task storage task) {
        id = idOf[msg.sender][target];
        if (id == 0) revert UnknownTask();
        task = tasks[id];
    }

    function _isPaid(Task storage task) private view returns (bool) {
        return depositOf[task.owner] >= costOfRun(task.gasLimit);
    }

    function _remove(uint256 id) private {
        Task storage task = tasks[id];
        depositOf[task.owner] += stake;
        uint256 last = active[active.length - 1];
        uint256 index = indexOf[id];
        (active[index], indexOf[last]) = (last, index);
        active.pop();
        delete indexOf[id];
        delete idOf[task.owner][task.target];
        delete tasks[id];
        emit TaskStopped(id);
    }
}
