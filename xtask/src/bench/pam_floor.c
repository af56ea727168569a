/* The floor of a login: PAM from start to end, again and again, in one process.
 *
 *   pam_floor SERVICE USER SECONDS     prints the milliseconds that one takes
 */
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int answer(int count, const struct pam_message **messages, struct pam_response **responses, void *data) {
    (void)messages, (void)data;
    struct pam_response *all = calloc((size_t)count, sizeof *all);
    if (all == NULL)
        return PAM_BUF_ERR;
    for (int i = 0; i < count; i++)
        all[i].resp = strdup("password");
    *responses = all;
    return PAM_SUCCESS;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    const struct pam_conv conversation = { answer, NULL };
    double began = now(), end = began + atof(argv[3]) * 1e3, last;
    long count = 0;
    do {
        pam_handle_t *handle;
        if (pam_start(argv[1], argv[2], &conversation, &handle) != PAM_SUCCESS)
            return 1;
        int result = pam_authenticate(handle, PAM_SILENT);
        if (result == PAM_SUCCESS)
            result = pam_acct_mgmt(handle, PAM_SILENT);
        pam_end(handle, result);
        if (result != PAM_SUCCESS)
            return 1;
        count++;
    } while ((last = now()) < end);
    printf("%.6f\n", (last - began) / (double)count);
    return 0;
}
