/* libFuzzer with Python inside: every input goes to one function of targets.py.
 *
 * FASTVERIFY_FUZZ_PYTHON is the interpreter whose packages are used, FASTVERIFY_FUZZ_TARGET the function. It returns
 * when all is well. An exception is a finding: it is printed, and abort() makes libFuzzer keep the input.
 */
#include <Python.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static PyObject *target;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    if (value == NULL) {
        fprintf(stderr, "%s is not set: start this by tests/fuzz/run.py\n", name);
        exit(2);
    }
    return value;
}

static void start_python(void) {
    PyConfig config;
    PyStatus status;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0; /* they are libFuzzer's */
    status = PyConfig_SetBytesString(&config, &config.program_name, setting("FASTVERIFY_FUZZ_PYTHON"));
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    PyObject *module;
    (void)argc;
    (void)argv;
    start_python();
    module = PyImport_ImportModule("targets");
    target = module == NULL ? NULL : PyObject_GetAttrString(module, setting("FASTVERIFY_FUZZ_TARGET"));
    if (target == NULL) {
        PyErr_Print();
        exit(2);
    }
    Py_DECREF(module);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *input = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *answer = input == NULL ? NULL : PyObject_CallFunctionObjArgs(target, input, NULL);
    if (answer == NULL) {
        PyErr_Print();
        fflush(NULL);
        abort();
    }
    Py_DECREF(answer);
    Py_DECREF(input);
    return 0;
}
