package VMware::VmPerl::Constants;

# The numbers of the scripting interface, once, and how a failure travels inside these modules.
#
# A failure is thrown as an object [number, text] by fail() and caught in exactly one place,
# VMware::VmPerl::Object::_run, which keeps it for get_last_error.

use strict;
use warnings;

our $VERSION = '1.0.0';

# Number, name without VM_E_, text. The same table as `ops::ErrorCode`; a test compares them.
my @ERRORS = (
    [ 0,    'SUCCESS',                '' ],
    [ -1,   'NOMEM',                  'Out of memory' ],
    [ -2,   'NETFAIL',                'Network failure' ],
    [ -3,   'INVALIDARGS',            'Invalid argument' ],
    [ -4,   'NOACCESS',               'Permission denied' ],
    [ -5,   'NOTCONNECTED',           'Not connected' ],
    [ -6,   'BADVERSION',             'Incompatible version' ],
    [ -7,   'TIMEOUT',                'Operation timed out' ],
    [ -8,   'BADSTATE',               q(Invalid operation for virtual machine's current state) ],
    [ -9,   'NOEXECVMAUTHD',          'Cannot run vmware-authd' ],
    [ -10,  'NOPROPERTY',             'No such property' ],
    [ -11,  'NOSUCHVM',               'No such virtual machine' ],
    [ -12,  'ALREADYCONNECTED',       'Already connected' ],
    [ -13,  'DISCONNECT',             'Connection lost' ],
    [ -14,  'BADRESPONSE',            'Unexpected response from vmware-authd' ],
    [ -15,  'GARBAGE',                'Reply not understood' ],
    [ -16,  'NEEDINPUT',              'Virtual machine requires user input to continue' ],
    [ -17,  'NOTSUPPORTED',           'Not supported' ],
    [ -18,  'INVALIDVM',              'Invalid virtual machine configuration' ],
    [ -19,  'VMINITFAILED',           'Virtual machine could not be started' ],
    [ -20,  'VMEXISTS',               'Virtual machine already exists' ],
    [ -21,  'VMBUSY',                 'Virtual machine is busy' ],
    [ -22,  'INSUFFICIENT_RESOURCES', 'Insufficient resources' ],
    [ -23,  'PROXYFAIL',              'Proxy failure' ],
    [ -999, 'UNSPECIFIED',            'Unknown error' ],
);

# Every constant that scripts can name, in the order of the documentation.
our @NAMES;
our %VALUE;

sub _add {
    my ($name, $value) = @_;
    push @NAMES, $name;
    $VALUE{$name} = $value;
    return;
}

_add("VM_E_$_->[1]", $_->[0]) for @ERRORS;

my @families = (
    [ VM_EXECUTION_STATE => [qw(ON OFF SUSPENDED STUCK UNKNOWN)] ],
    [ VM_POWEROP_MODE    => [qw(HARD SOFT TRYSOFT)] ],
    [ VM_PRODINFO        => [qw(PRODUCT PLATFORM BUILD VERSION_MAJOR VERSION_MINOR VERSION_REVISION)] ],
    [ VM_PRODUCT         => [qw(WS GSX ESX SERVER UNKNOWN)] ],
    [ VM_PLATFORM        => [qw(WINDOWS LINUX VMNIX UNKNOWN)] ],
);
for my $family (@families) {
    my ($prefix, $words) = @$family;
    my $number = 0;
    _add("${prefix}_$_", ++$number) for @$words;
}
_add('VM_TIMEOUT_ID', 1);

my %text_of = map { $_->[0] => $_->[2] } @ERRORS;

# Whether a number is one of the error numbers.
sub is_error { my ($number) = @_; return $number < 0 && exists $text_of{$number} }

# The text in front of the colon.
sub base_text { my ($number) = @_; return $text_of{$number} }

# Ends the call under way with an error number and, behind its text and a colon, a detail.
sub fail {
    my ($name, $detail) = @_;
    my $number = $VALUE{"VM_E_$name"};
    my $text = $text_of{$number};
    $text .= ": $detail" if defined $detail && length $detail;
    die bless [ $number, $text ], 'VMware::VmPerl::Failure';
}

# The same with a number and a whole text that came from the server.
sub fail_with {
    my ($number, $text) = @_;
    die bless [ $number, $text ], 'VMware::VmPerl::Failure';
}

1;

__END__

=head1 NAME

VMware::VmPerl::Constants - the numbers of the scripting interface

=head1 DESCRIPTION

Inner part of L<VMware::VmPerl>, which exports all of it. C<@NAMES> lists the constants, C<%VALUE> has
their values.

=cut
