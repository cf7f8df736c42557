-- Checks at submission for slurmctld, also for jobs that reach it by REST or from
-- a client without the plugin (JobSubmitPlugins=lua):
--
--   * a variable that makes libfabric abort is refused;
--   * a batch job on several nodes that asks for GPUs and names no profile is
--     advised to name one, and runs.
--
-- Copy it to job_submit.lua beside slurm.conf, or call efa_check() from your own.
-- Slurm skips a script that fails: a mistake here lets every job pass. The plugin
-- spank_efa makes the same check in sbatch, srun and salloc, and again on the node.

-- libfabric 1.19 and later aborts if one of these exists, whatever its value.
local ABORTS = { "FI_EFA_MTU_SIZE", "FI_EFA_TX_IOV_LIMIT", "FI_EFA_RX_IOV_LIMIT" }

-- How sbatch hands the plugin's option over.
local PROFILE = "^_SLURM_SPANK_OPTION_spank_efa_efa_profile="

-- Slurm's words for a number that was not given.
local NOT_SET = 4294967294

local function variable(job, name)
    return job.environment and job.environment[name]
end

local function has_profile(job)
    local options = job.spank_job_env
    local index = 0
    while options and options[index] do
        if options[index]:find(PROFILE) then
            return true
        end
        index = index + 1
    end
    return variable(job, "_SLURM_SPANK_OPTION_spank_efa_efa_profile") ~= nil
end

local function asks_for_gpus(job)
    for _, tres in ipairs({ "tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket" }) do
        if job[tres] and job[tres]:find("gpu") then
            return true
        end
    end
    return false
end

function efa_check(job)
    -- Only batch jobs bring their environment.
    if not job.script then
        return slurm.SUCCESS
    end
    for _, name in ipairs(ABORTS) do
        if variable(job, name) then
            slurm.log_user("%s makes libfabric abort. Remove it from the script or shell.", name)
            return slurm.ERROR
        end
    end
    local nodes = job.min_nodes
    if nodes and nodes ~= NOT_SET and nodes > 1 and asks_for_gpus(job) and not has_profile(job) then
        slurm.log_user("Several nodes and no EFA profile: consider --efa-profile=auto.")
    end
    return slurm.SUCCESS
end

function slurm_job_submit(job, partitions, submit_uid)
    return efa_check(job)
end

function slurm_job_modify(job, record, partitions, modify_uid)
    return slurm.SUCCESS
end

return slurm.SUCCESS
