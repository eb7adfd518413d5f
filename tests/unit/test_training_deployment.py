"""Examples for training on clusters: parsed and held to published schemas, for no cluster is at hand."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "scripts" / "deploy" / "training"
SCRIPTS = [TRAINING / "worker", ROOT / "scripts" / "deploy" / "tpu" / "start"]
KUBERNETES = "1.34"
RUN = ["run", "/work/workflow.toml", "--output", "/work"]
COUNT = {"type": "integer", "minimum": 1}


def an_object(*required, **properties):
    """An object that has some of these fields, and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def a_list(items):
    return {"type": "array", "items": items, "minItems": 1}


# Fields of the custom resource as kubernetes-sigs/jobset publishes it, in jobset.x-k8s.io_jobsets.yaml.
JOBSET = an_object(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=an_object("name", name={"type": "string"}),
    spec=an_object(
        "replicatedJobs",
        network=an_object(
            enableDNSHostnames={"type": "boolean"},
            publishNotReadyAddresses={"type": "boolean"},
            subdomain={"type": "string"},
        ),
        failurePolicy=an_object(
            maxRestarts=COUNT,
            restartStrategy={"enum": ["Recreate", "BlockingRecreate"]},
            rules=a_list(
                an_object(
                    "action",
                    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    action={
                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"],
                    },
                    onJobFailureReasons=a_list(
                        {
                            "enum": [
                                "BackoffLimitExceeded",
                                "DeadlineExceeded",
                                "FailedIndexes",
                                "MaxFailedIndexesExceeded",
                                "PodFailurePolicy",
                            ]
                        }
                    ),
                    targetReplicatedJobs=a_list({"type": "string"}),
                )
            ),
        ),
        replicatedJobs=a_list(
            an_object(
                "name",
                "template",
                name={"type": "string"},
                replicas=COUNT,
                template={"type": "object"},
            )
        ),
        ttlSecondsAfterFinished=COUNT,
    ),
)
# The same for kubeflow/training-operator 1.9, kubeflow.org_tfjobs.yaml.
TFJOB = an_object(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "kubeflow.org/v1"},
    kind={"const": "TFJob"},
    metadata=an_object("name", name={"type": "string"}),
    spec=an_object(
        "tfReplicaSpecs",
        successPolicy={"enum": ["", "AllWorkers"]},
        runPolicy=an_object(
            activeDeadlineSeconds=COUNT,
            backoffLimit=COUNT,
            cleanPodPolicy={"enum": ["All", "Running", "None"]},
            ttlSecondsAfterFinished=COUNT,
        ),
        tfReplicaSpecs=an_object(
            **dict.fromkeys(
                ("Chief", "Worker", "Evaluator"),
                an_object(
                    "replicas",
                    "template",
                    replicas=COUNT,
                    restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
                    template={"type": "object"},
                ),
            )
        ),
    ),
)
# Fields of CustomJobSpec as the reference of Vertex AI's REST API (version 1) has them.
CUSTOM_JOB = an_object(
    "workerPoolSpecs",
    workerPoolSpecs=a_list(
        an_object(
            "machineSpec",
            "replicaCount",
            "containerSpec",
            machineSpec=an_object(
                "machineType",
                machineType={"type": "string"},
                acceleratorType={"type": "string", "pattern": "^(NVIDIA|TPU)_[A-Z0-9_]+$"},
                acceleratorCount=COUNT,
                tpuTopology={"type": "string"},
            ),
            replicaCount=COUNT,
            nfsMounts=a_list(
                an_object(
                    "server",
                    "path",
                    "mountPoint",
                    server={"type": "string"},
                    path={"type": "string", "pattern": "^/"},
                    mountPoint={"type": "string", "pattern": "^[^/]+$"},
                )
            ),
            diskSpec=an_object(
                bootDiskType={"enum": ["pd-ssd", "pd-standard", "hyperdisk-balanced"]},
                bootDiskSizeGb={"type": "integer", "minimum": 100},
            ),
            containerSpec=an_object(
                "imageUri",
                imageUri={"type": "string"},
                command=a_list({"type": "string"}),
                args=a_list({"type": "string"}),
                env=a_list(
                    an_object("name", "value", name={"type": "string"}, value={"type": "string"}),
                ),
            ),
        )
    ),
    scheduling=an_object(
        timeout={"type": "string", "pattern": "^[0-9]+s$"},
        restartJobOnWorkerRestart={"type": "boolean"},
        strategy={"enum": ["STANDARD", "SPOT", "FLEX_START", "ON_DEMAND", "LOW_COST"]},
        disableRetries={"type": "boolean"},
        maxWaitDuration={"type": "string", "pattern": "^[0-9]+s$"},
    ),
    serviceAccount={"type": "string"},
    network={"type": "string", "pattern": "^projects/[^/]+/global/networks/[^/]+$"},
    baseOutputDirectory=an_object("outputUriPrefix", outputUriPrefix={"type": "string"}),
)


def load(name):
    return yaml.safe_load((TRAINING / name).read_text())


def job_template():
    (replicated,) = load("jobset.yaml")["spec"]["replicatedJobs"]
    return replicated["template"]


def tfjob_worker():
    (worker,) = load("tfjob.yaml")["spec"]["tfReplicaSpecs"].values()
    return worker


def pod_spec(name):
    template = job_template()["spec"] if name == "jobset.yaml" else tfjob_worker()
    return template["template"]["spec"]


def strictly(document):
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("name", "schema"), [("jobset.yaml", JOBSET), ("tfjob.yaml", TFJOB), ("vertex.yaml", CUSTOM_JOB)]
)
def test_the_manifests_have_the_fields_that_their_schemas_publish(name, schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(load(name))


def test_what_is_plain_kubernetes_in_them_is_held_to_its_own_schemas():
    strictly({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "worker"}, **job_template()})
    for name in ("jobset.yaml", "tfjob.yaml"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": pod_spec(name)}
        strictly(pod)
        pod["spec"]["terminationGracePeriod"] = 1
        with pytest.raises(kubernetes_validate.ValidationError):
            strictly(pod)


@pytest.mark.parametrize("name", ["jobset.yaml", "tfjob.yaml"])
def test_pods_have_time_for_a_checkpoint_and_a_place_for_all_that_they_write(name):
    spec = pod_spec(name)
    (container,) = spec["containers"]
    assert spec["terminationGracePeriodSeconds"] >= 120
    assert container["args"] == RUN
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts) == {"/work", "/tmp", "/dev/shm"}
    assert sorted(mounts.values()) == sorted(volume["name"] for volume in spec["volumes"])
    threads = next(each for each in container["env"] if each["name"] == "TF_NUM_INTRAOP_THREADS")
    assert threads["valueFrom"]["resourceFieldRef"]["containerName"] == container["name"]
    assert "cpu" in container["resources"]["limits"]


def test_a_job_that_is_stopped_starts_again_and_a_hopeless_one_does_not():
    from tfapp.commands._options import EXIT_INTERRUPTED
    from tfapp.errors import ConfigError, ReleaseRefused

    jobset = load("jobset.yaml")["spec"]
    assert jobset["failurePolicy"]["maxRestarts"] > 1
    (rule,) = jobset["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    spec = job_template()["spec"]
    (policy,) = spec["podFailurePolicy"]["rules"]
    codes = policy["onExitCodes"]
    assert set(codes["values"]) == {ReleaseRefused.exit_code, ConfigError.exit_code}
    assert EXIT_INTERRUPTED not in codes["values"]
    assert codes["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")
    # The operator's ExitCode takes what is below 128 for a failure for good.
    assert tfjob_worker()["restartPolicy"] == "OnFailure"
    assert load("vertex.yaml")["scheduling"]["restartJobOnWorkerRestart"] is True


def test_the_training_operator_finds_its_container_and_port():
    (container,) = pod_spec("tfjob.yaml")["containers"]
    assert container["name"] == "tensorflow"
    assert [port["name"] for port in container["ports"]] == ["tfjob-port"]


def test_on_vertex_every_worker_runs_the_same_command_on_the_shared_disk():
    chief, workers = load("vertex.yaml")["workerPoolSpecs"]
    assert chief["replicaCount"] == 1
    assert {**workers, "replicaCount": 1} == chief
    (share,) = chief["nfsMounts"]
    folder = f"/mnt/nfs/{share['mountPoint']}"
    assert chief["containerSpec"]["args"] == ["run", f"{folder}/workflow.toml", "--output", folder]


def start_worker(tmp_path, *arguments, **variables):
    """Runs the start script with a stand-in for ``tfapp`` that prints its variable and its arguments."""
    stand_in = tmp_path / "tfapp"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$TF_CONFIG" "$@"\n')
    stand_in.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        [TRAINING / "worker", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def jobset_variables(index):
    """The variables of a pod as Kubernetes makes them from the manifest."""
    name = load("jobset.yaml")["metadata"]["name"]
    (container,) = pod_spec("jobset.yaml")["containers"]
    assert container["env"][0]["name"] == "JOBSET_NAME"
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    filled = {key: value.replace("$(JOBSET_NAME)", name) for key, value in given.items()}
    return {"JOB_COMPLETION_INDEX": str(index), **filled}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_pod_of_the_jobset_learns_who_it_and_the_others_are(tmp_path, index):
    done = start_worker(tmp_path, *RUN, **jobset_variables(index))
    assert done.returncode == 0, done.stderr
    config, *arguments = done.stdout.splitlines()
    assert arguments == RUN
    # JobSet names pods <set>-<job>-<number of the job>-<index>, below a service of the set's name.
    hosts = [f"bbc-news-worker-0-{number}.bbc-news:2222" for number in range(3)]
    assert json.loads(config) == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
    spec = job_template()["spec"]
    assert spec["completions"] == spec["parallelism"] == len(hosts)
    assert spec["completionMode"] == "Indexed"
    (container,) = pod_spec("jobset.yaml")["containers"]
    assert container["command"] == ["worker"]
    assert [port["containerPort"] for port in container["ports"]] == [2222]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JOB_COMPLETION_INDEX": "3"}, "give it the Job's completions"),
        ({"JOB_COMPLETION_INDEX": ""}, "JOB_COMPLETION_INDEX = '': a whole number is needed"),
        ({"TFAPP_WORKERS": "many"}, "TFAPP_WORKERS = 'many': a whole number is needed"),
        ({"TFAPP_WORKER_HOSTS": "host"}, "a * is needed where the index goes"),
        ({"TFAPP_WORKER_HOSTS": 'a"*'}, "host names with one *"),
        ({"TFAPP_WORKER_HOSTS": "a*b*"}, "host names with one *"),
    ],
)
def test_a_worker_that_cannot_know_who_it_is_does_not_start(tmp_path, variables, message):
    done = start_worker(tmp_path, *RUN, **{**jobset_variables(0), **variables})
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_start_scripts_are_executable_and_clean(script):
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)
    installed = Path(sys.executable).with_name("shellcheck")
    shellcheck = installed if installed.exists() else shutil.which("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_takes_what_it_is_made_from_and_runs_as_nobody_special():
    parsed = DockerfileParser(fileobj=io.BytesIO((TRAINING / "Containerfile").read_bytes()))
    steps = [(step["instruction"], step["value"]) for step in parsed.structure]
    assert steps[-1] == ("ENTRYPOINT", '["tfapp"]')
    users = [value for instruction, value in steps if instruction == "USER"]
    assert users == ["1000:1000"]
    image, _, tag = parsed.baseimage.rpartition(":")
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert image == "docker.io/library/python"
    assert re.fullmatch(r"3\.11-slim-[a-z]+", tag)
    assert ">=3.11" in requires
    for value in (value for instruction, value in steps if instruction == "COPY"):
        *sources, _ = (word for word in value.split() if not word.startswith("--"))
        assert all((ROOT / source).exists() for source in sources)
    assert f"USER {pod_spec('jobset.yaml')['securityContext']['runAsUser']}:" in parsed.content


def test_the_environment_for_tpus_holds_no_other_tensorflow():
    script = SCRIPTS[1].read_text()
    assert "'tensorflow-tpu==2.20.*'" in script
    assert "--no-deps 'tensorflow-text==2.20.*' keras-hub -e" in script
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"tensorflow", "tensorflow-text", "tensorboard"} <= pinned  # what `grep -v '^tensor'` leaves out
