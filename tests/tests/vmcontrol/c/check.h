/* What the test programs share. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmcontrol.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* Success of a call on a machine, or the reason. */
#define OK(vm, call) \
    do { \
        if (!(call)) { \
            char *why = NULL; \
            int number = VMControl_VMGetLastError(vm, &why); \
            fprintf(stderr, "%s:%d: %s: %d %s\n", __FILE__, __LINE__, #call, number, why ? why : "(null)"); \
            abort(); \
        } \
        CHECK(VMControl_VMGetLastError(vm, NULL) == 0); \
    } while (0)

/* Failure of a call on a machine, with this number and these words in the text. */
#define FAILS(vm, number, words, call) \
    do { \
        char *why = (char *)1; \
        CHECK(!(call)); \
        if (VMControl_VMGetLastError(vm, &why) != (number) || !strstr(why, words)) { \
            fprintf(stderr, "%s:%d: %s: %d %s\n", __FILE__, __LINE__, #call, VMControl_VMGetLastError(vm, NULL), why); \
            abort(); \
        } \
        free(why); \
    } while (0)

/* The text of a call that returns one, released. */
#define TEXT(vm, expected, call) \
    do { \
        char *text = (call); \
        OK(vm, text != NULL); \
        if (strcmp(text, expected) != 0) { \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, text); \
            abort(); \
        } \
        free(text); \
    } while (0)

#endif
