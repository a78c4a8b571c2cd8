# Check a profile before any work starts: Snakemake ignores unknown rules, and notices a missing GPU partition only when
# it submits the first GPU job, after hours of other jobs.
import shutil

from snakemake.iocontainers import Wildcards

from prosparse.system.problems import did_you_mean

if workflow.is_main_process:
    every = {each.name: each for each in workflow.rules}
    chosen = {
        "set-resources": workflow.resource_settings.overwrite_resources,
        "set-threads": workflow.resource_settings.overwrite_threads,
    }
    for key, named in chosen.items():
        if unknown := named.keys() - every.keys():
            raise WorkflowError(
                f"{key}: no rule is called {', '.join(sorted(unknown))}{did_you_mean(min(unknown), every)}; "
                f"allowed: {', '.join(sorted(every))}"
            )
    if shutil.which("sbatch"):
        try:
            slurm.check(
                (
                    name,
                    {
                        key: resource.evaluate(
                            Wildcards(fromdict={"run": run}),
                            input=(),
                            attempt=1,
                            threads=1,
                            rulename=name,
                            async_run=None,
                        ).value
                        for key, resource in each.resources.items()
                        if key in slurm.RESOURCES
                    },
                )
                for name, each in every.items()
                for run in experiment.runs
            )
        except ConfigError as error:
            raise WorkflowError(str(error))
