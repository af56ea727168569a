package Live;

# A live instance for the tests, named by the environment; without one they are left out.
#
#   VMPERL_ROOT                       the instance's --root
#   VMPERL_TLS_PORT, VMPERL_PLAIN_PORT
#   VMPERL_USER, VMPERL_PASSWORD      who the tests run as
#   VMPERL_OFF                        a .vmx of that user, not registered
#   VMPERL_HIDDEN                     a registered .vmx that the user may not read
#   VMPERL_MACHINE                    a .vmx that can be started: boot.img beside it is floppy0

use strict;
use warnings;

use Exporter ();
use File::Temp ();
use Test::More;
use Time::HiRes ();

our @ISA = ('Exporter');
our @EXPORT = qw(local_params ok_and_clean fails eventually);

# Leaves the test out unless all these variables are set.
sub need {
    my (@names) = @_;
    for my $name (@names) {
        plan skip_all => "$name is not set: no live instance" if !defined $ENV{$name} || !length $ENV{$name};
    }
    $ENV{VMSERVERD_ROOT} = $ENV{VMPERL_ROOT};
    our $directory = File::Temp->newdir;    # gone with the script
    $ENV{VMSERVERD_KNOWN_HOSTS} = "$directory/hosts";
    return;
}

sub local_params { return VMware::VmPerl::ConnectParams::new() }

# A call that succeeded: its value as expected, and no error left.
sub ok_and_clean {
    my ($object, $value, $expected, $what) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @error = $object->get_last_error;
    is($value, $expected, $what);
    is_deeply(\@error, [ 0, '' ], "$what: no error");
    return;
}

# A call that failed: undef, the number, and a text that matches.
sub fails {
    my ($object, $value, $number, $like, $what) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @error = $object->get_last_error;
    is($value, undef, "$what fails");
    is($error[0], $number, "$what: $number");
    like($error[1], $like, "$what: text");
    return;
}

# Asks until it is true, for twenty seconds.
sub eventually {
    my ($what, $ask) = @_;
    my $end = Time::HiRes::time() + 20;
    while (Time::HiRes::time() < $end) {
        return pass($what) if $ask->();
        Time::HiRes::sleep(0.02);
    }
    return fail($what);
}

1;
